"""What a store holds that no given grid reaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdray.plan.steps import Plan
from kdray.spec.errors import InputError
from kdray.store import Store, io
from kdray.store.artifact import leftovers
from kdray.store.locks import DONE, STALE_AFTER, at_work, working
from kdray.store.store import ERRORS


@dataclass(frozen=True)
class Garbage:
    """A folder or file to remove, and the bytes in it."""

    path: Path
    bytes: int


def find_garbage(plans: list[Plan], store: Store, patience: float = STALE_AFTER) -> list[Garbage]:
    """Artifacts that no plan reaches, and what attempts that ended early left in those that are done.

    Never garbage: an artifact that somebody works on, whatever it is made from, and what it has exported. Where
    there are locks that nobody gave back, this looks for up to `patience` seconds whether their owners still count.

    Raises:
        InputError: a plan has unresolved steps: what it reaches is not known.
    """
    needed = set()
    for plan in plans:
        for step in plan.steps():
            if step.id is None:
                raise InputError(
                    plan.grid.name, f"{step.kind} {step.slug} is unresolved", "run the grid once, then collect"
                )
            needed.add(step.id)
    folders = list(store.folders())
    beside = io.list_folders(store.root / "scratch") + io.list_files(store.root / ERRORS)
    # Between two steps a run holds no lock, but has a folder there.
    abandoned = bool(beside) and not at_work(store.root, patience)
    unfinished = [folder for _, folder in folders if not (folder / DONE).is_file()]
    busy = set() if abandoned else working(unfinished, patience)
    needed |= _held_by(
        {key.id for key, folder in folders if folder in busy}, {key.id: store.record(key.id) for key, _ in folders}
    )
    garbage = []
    for key, folder in folders:
        finished = store.get(key)
        if folder in busy:
            continue
        if key.id not in needed or (finished and finished.folder != folder):
            garbage.append(folder)
        elif finished:
            garbage += leftovers(finished)
    if abandoned:
        garbage += beside
    return [Garbage(path, io.size(path)) for path in garbage]


def _held_by(working_on: set[str], records: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The artifacts being made, all that they are made from, and what is exported from them meanwhile."""
    exports = {id for id, record in records.items() if working_on.intersection(record["inputs"].values())}
    found, open_ = set(), [*working_on, *exports]
    while open_:
        id = open_.pop()
        if id not in found:
            found.add(id)
            open_ += records[id]["inputs"].values() if id in records else []
    return found
