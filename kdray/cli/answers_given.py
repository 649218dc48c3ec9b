"""`kdray score --answers`: measuring a file of answers, without any model that answers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from kdray.cli.shared import out, say
from kdray.spec import InputError, declare


def score_given(answers: str, metrics: str, store: str) -> None:
    """Measure the answers in a file and show them: rouge where there are references, and the metrics that are named."""
    from kdray.check.checks import check_metrics
    from kdray.check.machine import needs_of_metrics, require
    from kdray.models.load import CACHE
    from kdray.report.given import NO_LENS, measured, print_given, write_given
    from kdray.score.given import read_given
    from kdray.score.standalone import open_metric
    from kdray.spec.components import bind, component
    from kdray.spec.load import parse_uses
    from kdray.spec.paths import local_path
    from kdray.spec.sections.base import Use
    from kdray.store import Outer

    folder = Path(os.path.abspath(local_path(store, "--store")))
    uses = {use.name: use for use in parse_uses(metrics, declare.Metric, "--metrics")}
    path = Path(local_path(answers.removeprefix("file:"), "--answers"))
    given = read_given(path)
    gives = {"source", *(("reference", "short") if given.has_references else ())}
    for name in uses:
        wants = component(declare.Metric, name, "--metrics").declared
        if wants.samples:
            raise InputError("--metrics", f"'{name}' needs more answers of the model", "leave it out, or take --model")
        if wants.answerer:
            raise InputError("--metrics", f"'{name}' asks the model that answered", "leave it out, or take --model")
        if wants.cited:
            raise InputError("--metrics", f"'{name}' needs citations", "leave it out, or take --model")
        if lacking := set(wants.needs) - gives:
            found = f"'{name}' needs a {' and a '.join(sorted(lacking))}, which {path.name} has not"
            raise InputError("--metrics", found, "leave it out")
    if given.has_references and "rouge" not in uses:
        own = Use.model_construct(name="rouge", params=bind(declare.Metric, "rouge", {}, "--metrics"))
        uses = {"rouge": own} | uses
    for use in uses.values():
        require(needs_of_metrics({"--metrics": use}), offline=False)
        check_metrics({"--metrics": use}, Outer(CACHE))
    target = folder / "answers" / path.stem
    found = measured(given, {name: open_metric(use, "--metrics") for name, use in uses.items()})
    notes = [*given.notes, *_standins(uses), NO_LENS]
    if not given.has_references:
        notes.insert(0, "No references, so no rouge.")
    if not set(uses) - {"rouge"}:
        notes.append(f"Whether answers are true to their sources: add --metrics, one of {', '.join(_of_texts())}.")
    print_given(found, list(uses), out, path.name)
    for note in notes:
        say(note)
    write_given(found, list(uses), notes, target, path.name)
    say(f"report  {os.path.relpath(target / 'report.md')}")


def _standins(names: Iterable[str]) -> Iterator[str]:
    from kdray.spec.components import declared

    for name in names:
        if declared(declare.Metric, name).standin:
            yield f"{name} stands in for a metric that cannot be had here, and measures no facts: no number to publish."


def _of_texts() -> list[str]:
    """Metrics that hold an answer against its source and measure facts."""
    from kdray.spec.components import components
    from kdray.spec.lens import judges_texts

    return [
        name for name, each in components(declare.Metric).items() if judges_texts(name) and not each.declared.standin
    ]
