"""Why two artifacts are not the same: the fields in which their payloads differ, down to the first cause."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from kdray.spec.errors import InputError
from kdray.store import Store
from kdray.store.ids import canonical

Difference = tuple[str, Any, Any]


class Records(Protocol):
    """What knows payloads by id: a store, or a store and a plan."""

    def record(self, id: str) -> Mapping[str, Any]:
        """Raises KeyError if it knows no such id."""
        ...


def differences(records: Records, a: str, b: str, where: str = "") -> Iterator[Difference]:
    """(field, value in a, value in b) for every field that differs; inputs are followed to what differs in them.

    An input that is no longer in the store cannot be followed: then the two ids are given.

    Raises:
        KeyError: there is no record of one of the ids.
    """
    for name, x, y in _fields(records.record(a), records.record(b)):
        if _are_known(records, name, x, y):
            yield from differences(records, x, y, f"{where}{_input(name)} > ")
        else:
            yield where + name.removeprefix("params."), x, y


def causes(records: Records, a: str, b: str) -> Iterator[Difference]:
    """As `differences`, every pair of inputs only once, on the shortest way: one cause, whatever it stands behind.

    Raises:
        KeyError: there is no record of one of the ids.
    """
    waiting, seen = [("", a, b)], set()
    for where, left, right in waiting:  # which grows meanwhile
        for name, x, y in _fields(records.record(left), records.record(right)):
            if not _are_known(records, name, x, y):
                yield where + name.removeprefix("params."), x, y
            elif (x, y) not in seen:
                seen.add((x, y))
                waiting.append((f"{where}{_input(name)} > ", x, y))


def compared(below: Path, a: str, b: str | None) -> list[str]:
    """What `kdray why A B` prints, of the store at `below`, or the one in it, that knows both ids.

    Raises:
        InputError: there is none, or one id is missing.
    """
    if b is None:
        raise InputError("ids", f"only {a}", "give two artifacts' ids, or a grid file")
    for root in [below, *sorted(path for path in below.glob("*") if path.is_dir())]:
        try:
            found = list(differences(Store(root), a, b))
        except KeyError:
            continue
        return [f"{field}: {left!r} | {right!r}" for field, left, right in found] or ["the same"]
    raise InputError(
        "ids", f"no store below {below} knows both {a} and {b}", "take ids from `kdray plan --json`, or give --store"
    )


def _fields(left: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[Difference]:
    """The fields in which two payloads differ; of two kinds of steps only that."""
    if left["step"] != right["step"]:
        yield "step", left["step"], right["step"]
        return
    flat_left, flat_right = _flatten(left), _flatten(right)
    for name in sorted({*flat_left, *flat_right}):
        x, y = flat_left.get(name), flat_right.get(name)
        if canonical(x) != canonical(y):
            yield name, x, y


def _are_known(records: Records, name: str, *ids: Any) -> bool:
    """Whether a field is an input whose two records are there."""
    try:
        return name.startswith("inputs.") and all(records.record(id) for id in ids)
    except KeyError:
        return False


def _input(name: str) -> str:
    return name.removeprefix("inputs.")


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix[:-1]: value}
    return {name: leaf for key, item in value.items() for name, leaf in _flatten(item, f"{prefix}{key}.").items()}
