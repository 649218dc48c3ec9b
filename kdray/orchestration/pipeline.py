"""Items of work that are all there at once, done by a run's actors in the order given."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence

from kdray.artifacts.parts import carry_over, parts
from kdray.orchestration.crew import Crew, I, Maker
from kdray.orchestration.items import Part
from kdray.orchestration.pools import PATIENCE, Item, too_large
from kdray.orchestration.resources import Resources
from kdray.orchestration.work import Work
from kdray.store import Attempt

TICK = 0.05  # seconds between looks at what has been finished


def run_pipeline(
    groups: list[list[I]], make: Callable[[], Maker[I]], resources: Resources, crew: Crew
) -> Iterator[tuple[str, str]]:
    """(key, error or "") of every item, as soon as it is finished.

    Groups that need as many GPUs share actors.
    """
    for gpus, alike in itertools.groupby(sorted(filter(None, groups), key=_gpus), _gpus):
        yield from _run(list(alike), make, resources, gpus, crew)


def _run(
    groups: list[list[I]], make: Callable[[], Maker[I]], resources: Resources, gpus: int, crew: Crew
) -> Iterator[tuple[str, str]]:
    if not (places := resources.actors(gpus)):
        reason = too_large(gpus, resources)
        yield from ((item.key, reason) for group in groups for item in group)
        return
    seats = crew.start(make, resources, min(places, len(groups)), gpus)
    try:
        for group in groups:
            seats.put(group)
        while seats.groups:
            yield from seats.finished()
            time.sleep(TICK)
    finally:
        seats.close()
    seats.join(PATIENCE)


def _gpus(group: Sequence[Item]) -> int:
    return max(item.gpus for item in group)


def make_parts(
    title: str,
    cuts: Sequence[Sequence[int]],
    attempt: Attempt,
    make: Callable[[], Maker[Part]],
    work: Work,
    gpus: int = 1,
    instead: Callable[[list[Part]], Iterator[tuple[str, str]]] | None = None,
) -> str | None:
    """Make the parts of an attempt that no earlier one left, one for each of `cuts`; returns why that failed, None if
    not.

    `gpus` is how many an actor needs; `instead` does what makers would.
    """
    present, errors = carry_over(attempt), []
    items = [
        Part(key=str(i), gpus=gpus, target=attempt.path, index=i, rows=cut)
        for i, cut in enumerate(cuts)
        if i not in present
    ]
    with work.progress.bar(title, len(cuts), "parts") as bar:
        bar.set(len(present))
        made = instead(items) if instead else run_pipeline([[i] for i in items], make, work.resources, work.crew)
        for _, error in made:
            errors += [error] if error else []
            bar.advance()
    if errors or len(parts(attempt.path)) != len(cuts):
        return errors[0] if errors else "parts are missing"
    return None
