"""Why two artifacts are not the same: the fields in which their payloads differ, down to the first cause."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kdray.store import Store
from kdray.store.ids import canonical


def differences(store: Store, a: str, b: str, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(field, value in a, value in b) for every field that differs; inputs are followed to what differs in them.

    An input that is no longer in the store cannot be followed: then the two ids are given.

    Raises:
        KeyError: the store knows no such id.
    """
    left, right = store.record(a), store.record(b)
    if left["step"] != right["step"]:
        yield f"{where}step", left["step"], right["step"]
        return
    flat_left, flat_right = _flatten(left), _flatten(right)
    for name in sorted({*flat_left, *flat_right}):
        x, y = flat_left.get(name), flat_right.get(name)
        if canonical(x) == canonical(y):
            continue
        if name.startswith("inputs.") and all(_known(store, id) for id in (x, y)):
            yield from differences(store, str(x), str(y), f"{where}{name.removeprefix('inputs.')} > ")
        else:
            yield where + name.removeprefix("params."), x, y


def _known(store: Store, id: Any) -> bool:
    try:
        return bool(store.record(id))
    except KeyError:
        return False


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix[:-1]: value}
    return {name: leaf for key, item in value.items() for name, leaf in _flatten(item, f"{prefix}{key}.").items()}
