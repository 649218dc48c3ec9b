"""What a store holds that no given grid reaches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdray.plan.steps import Plan
from kdray.spec.errors import InputError
from kdray.store import Store, io


@dataclass(frozen=True)
class Garbage:
    """A folder to remove and the bytes in it."""

    path: Path
    bytes: int


def find_garbage(plans: list[Plan], store: Store) -> list[Garbage]:
    """Artifacts that no plan reaches, and what abandoned attempts left in those that are done.

    An artifact that somebody works on is never garbage.

    Raises:
        InputError: a plan has unresolved steps: what it reaches is not known.
    """
    reached = set()
    for plan in plans:
        for step in plan.steps():
            if step.id is None:
                raise InputError(plan.grid.name, f"{step.kind} {step.slug} is unresolved", "run the grid once, then collect")
            reached.add(step.id)
    garbage = []
    for key, folder in store.folders():
        if store.is_running(key):
            continue
        if key.id not in reached:
            garbage.append(folder)
        elif artifact := store.find(key.id, key.kind):
            garbage += [path for path in io.list_folders(folder) if path != artifact.path]
    if not any(store.is_running(key) for key, _ in store.folders()):
        garbage += io.list_folders(store.root / "scratch")
    return [Garbage(path, io.size(path)) for path in garbage]
