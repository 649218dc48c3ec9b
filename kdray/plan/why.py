"""Why two artifacts are not the same: the fields in which their payloads differ, down to the first cause."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kdray.store import Store


def differences(store: Store, a: str, b: str, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(field, value in a, value in b) for every field that differs; inputs are followed to what differs in them.

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
        if x == y:
            continue
        if name.startswith("inputs.") and x is not None and y is not None:
            yield from differences(store, x, y, f"{where}{name.removeprefix('inputs.')} > ")
        else:
            yield where + name.removeprefix("params."), x, y


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix[:-1]: value}
    return {name: leaf for key, item in value.items() for name, leaf in _flatten(item, f"{prefix}{key}.").items()}
