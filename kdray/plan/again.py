"""Why steps of a grid will be made again: what has changed since the most alike artifact of the same name."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kdray.plan.progress import find_point
from kdray.plan.steps import Plan, Step
from kdray.plan.why import Difference, Records, causes
from kdray.spec.errors import InputError
from kdray.store import Store
from kdray.store.locks import DONE

LONGEST = 40  # characters of a value in a line


def missing_steps(plan: Plan, store: Store, point: str | None = None) -> list[Step]:
    """The steps that are not done: all of them, or those of one point, by its slug or id, and of what it needs.

    Raises:
        InputError: the grid has no such point, or there is no store yet.
    """
    if not store.root.is_dir():
        raise InputError(
            "runtime.store", f"no store {store.root}", "run the grid first: then this says what an edit makes again"
        )
    steps = plan.steps() if point is None else _of_point(plan, point)
    return [step for step in steps if step.state(store) != "done"]


def explained(plan: Plan, store: Store, point: str | None = None) -> list[str]:
    """What `kdray why GRID [POINT]` prints: a line for all steps of a kind that have the same cause.

    Raises:
        InputError: as for `missing_steps`.
    """
    groups: dict[tuple[str, str], list[Step]] = defaultdict(list)
    new, unresolved = Counter[str](), Counter[str]()
    known, earlier = _Known(plan, store), _finished(store)
    for step in missing_steps(plan, store, point):
        if step.id is None:
            unresolved[step.kind] += 1
        elif changes := changes_of(step.id, known, earlier[step.kind, step.slug]):
            groups[step.kind, ", ".join(map(_written, changes))].append(step)
        else:
            new[step.kind] += 1
    lines = []
    for (kind, changes), alike in groups.items():
        more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        lines.append(f"{kind} {alike[0].slug}{more}: {changes}")
    for counts, what in (
        (new, "made for the first time"),
        (unresolved, "not known before the first run has resolved the references"),
    ):
        if counts:
            lines.append(f"{what}: {', '.join(f'{count} {kind}' for kind, count in counts.items())}")
    return lines if groups else ["nothing will be made again", *lines]


def changes_of(id: str, known: Records, earlier: Iterable[str]) -> list[Difference]:
    """What has changed since that of `earlier` artifacts which differs in the fewest fields; nothing without one."""
    return min((list(causes(known, before, id)) for before in earlier), key=len, default=[])


def _finished(store: Store) -> dict[tuple[str, str], list[str]]:
    """The ids of all artifacts by kind and slug, newest first."""
    finished = [(folder / DONE, key) for key, folder in store.folders() if (folder / DONE).is_file()]
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for _, key in sorted(finished, key=lambda each: (-each[0].stat().st_mtime, each[1].id)):
        found[key.kind, key.slug].append(key.id)
    return found


class _Known:
    """Payloads of the plan's steps and of the store's artifacts, each read once."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.store = store
        self.records: dict[str, Mapping[str, Any]] = {
            step.id: step.payload for step in plan.steps() if step.id and step.payload
        }

    def record(self, id: str) -> Mapping[str, Any]:
        if id not in self.records:
            self.records[id] = self.store.record(id)
        return self.records[id]


def _of_point(plan: Plan, name: str) -> Iterator[Step]:
    """The steps of a point: its training, checkpoints and scores, and all that they are made from."""
    planned = find_point(plan, name)
    seen: set[Any] = set()

    def walk(step: Step) -> Iterator[Step]:
        if step.mark not in seen:
            seen.add(step.mark)
            for needed in step.inputs.steps:
                yield from walk(needed)
            yield step

    scores = [score.measure for score in plan.scores if score.subject == planned.point]
    for root in [planned.train, *planned.exports.values(), *scores]:
        yield from walk(root)


def _written(change: Difference) -> str:
    field, before, now = change
    return f"{field}: {_short(before)} -> {_short(now)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
