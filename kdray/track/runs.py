"""What MLflow should hold of a grid, read from the store: one run for every point and reference model.

A run's metrics come as entries: what is written together at one place of the x axis. Curves have sequences
seen in training on the x axis; final metrics are single numbers, at 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kdray.artifacts.answers import answers_to_show
from kdray.artifacts.curve import Curve
from kdray.artifacts.scores import SCORES, rows_file
from kdray.plan import Plan
from kdray.plan.steps import PointPlan, State, Step, Subject
from kdray.report.chosen import Choices
from kdray.report.page import PAGE
from kdray.report.page.evidence import Evidence
from kdray.report.results import Checkpoint, Results
from kdray.report.table import reference_name
from kdray.spec.points import Point
from kdray.store import Artifact, Store
from kdray.store.locks import DONE
from kdray.store.store import RECORD

POINT_TAG, IN_GRID_TAG = "kdray.point", "kdray.in_grid"
EARLY_TAG = "kdray.stopped_early"  # why a search has stopped a point; empty where it did not, or no longer
LOSS = "train/loss"
CURVES = {
    "loss": LOSS,  # first, so that it stands for the whole entry
    "ce": "train/ce",
    "soft": "train/soft",
    "sampled_length": "train/sampled_length",
    "sampled_nll": "train/sampled_nll",
    "margin": "train/margin",
    "lr": "train/lr",
    "grad_norm": "train/grad_norm",
    "heldout_ce": "ckpt/heldout_ce",
    "heldout_kl": "ckpt/heldout_kl",
    "heldout_margin": "ckpt/heldout_margin",
}
WHOLE = (
    256  # steps of a curve that are all shown; of as many again every second one, then every fourth of twice as many
)
ANSWERS_SHOWN, SOURCE_SHOWN = 10, 1000  # answers, and characters of a source text, among a run's files
REPORTED = (
    ".html",
    ".md",
    ".csv",
    ".tex",
    ".parquet",
    ".png",
)  # what of a report's folder is kept; its figures are in the page
NAME_LENGTH = 20  # what the page's list of runs shows

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
STATUS: dict[State, Status] = {"done": "FINISHED", "running": "RUNNING", "missing": "FAILED", "unresolved": "FAILED"}


@dataclass(frozen=True)
class WantedModel:
    """A checkpoint, to which its scores belong. `identity` finds it again: the id of what was exported."""

    identity: str
    name: str
    params: Mapping[str, str]


@dataclass(frozen=True)
class Entry:
    """Metrics by name that are written together; `step` is in sequences seen, `model` what they are scores of."""

    step: int
    values: Mapping[str, float]
    model: WantedModel | None = field(default=None, compare=False)

    @property
    def mark(self) -> tuple[str, int]:
        """The metric whose presence says that the whole entry is there."""
        return next(iter(self.values)), self.step


Models = Mapping[float | None, WantedModel]  # a subject's, by their positions in training


@dataclass(frozen=True)
class WantedRun:
    """A run as it should be. `identity` finds it again; times are milliseconds since 1970."""

    identity: str
    name: str
    status: Status
    started: int
    ended: int | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    entries: list[Entry] = field(default_factory=list)
    files: Mapping[str, Any] = field(default_factory=dict)  # by name: what to write as JSON, or the path of a file


def wanted_runs(results: Results, store: Store) -> Iterator[WantedRun]:
    """The runs of all points that were begun, and of the reference models that were scored."""
    plan = results.plan
    for point in plan.points:
        if point.train.id:
            yield from _point(point, results, store)
    for role, model in plan.models.items():
        artifact = model.id and store.get(model.key)
        if artifact and any(checkpoint.scores for checkpoint in results.of(role)):
            yield _reference(role, model, artifact, results, store)


def identities(plan: Plan) -> set[str] | None:
    """Of all runs that belong to the grid; None as long as that is not known."""
    trains = [point.train for point in plan.points]
    if any(step.id is None for step in [*trains, *plan.models.values()]):
        return None
    points = {str(step.id) for step in trains} | {_reference_identity(role, step) for role, step in plan.models.items()}
    return points | {_summary_identity(plan)}


def summary_run(results: Results, store: Store) -> Iterator[WantedRun]:
    """The run that stands for the whole grid: its report as files, and the verdict as its description; none before
    there is a report.
    """
    folder = store.root / "report" / results.plan.grid.name
    if not (folder / PAGE).is_file():
        return
    identity, written = _summary_identity(results.plan), _milliseconds(folder / PAGE)
    verdict = " ".join(Evidence(results).sentences)
    yield WantedRun(
        identity=identity,
        name="report",
        status="FINISHED",
        started=written,
        ended=written,
        params={"family": results.plan.grid.family},
        tags=_tags(results.plan, identity, "report", None, store)
        | {"mlflow.note.content": verdict or results.plan.grid.question},
        files={
            f"report/{path.name}": path
            for path in sorted(folder.iterdir())
            if path.is_file() and path.suffix in REPORTED
        },
    )


def _point(planned: PointPlan, results: Results, store: Store) -> Iterator[WantedRun]:
    point, train = planned.point, planned.train
    state, curve, early = train.state(store), results.curves[point], results.early.get(point, "")
    artifact = store.get(train.key) if state == "done" else None
    folder = store.folder(train.key)
    if not (folder / RECORD).is_file():
        return
    if state == "running" and not curve:  # claimed, but not its turn yet
        return
    checkpoints, name = results.of(point), _name(point)
    params = {
        "alpha": f"{point.alpha:g}",
        "batch": f"{point.batch:g}",
        "family": results.plan.grid.family,
        "labels": point.labels,
        "lr": f"{point.lr:g}",
        "seed": f"{point.seed:g}",
        **({"teacher": point.teacher} if point.teacher else {}),
        **({"smoothing": f"{point.smoothing:g}"} if point.smoothing else {}),
        **({"temperature": f"{point.temperature:g}"} if point.temperature != 1 else {}),
        **({"on_policy": f"{point.on_policy:g}"} if point.samples else {}),
        **({"rows": point.rows} if point.rows != "all" else {}),
        **({"aligned": "true"} if point.aligned else {}),
    }
    models: Models = {
        position: WantedModel(str(export.id), f"{_name_of_model(name)}-{position:g}", params)
        for position, export in planned.exports.items()
    }
    finals = _finals(point, results, store, models)
    yield WantedRun(
        identity=str(train.id),
        name=name,
        status="KILLED" if early and state != "running" else STATUS[state],
        started=_milliseconds(folder / RECORD),
        ended=_milliseconds(folder / DONE) if artifact else None,
        params=params,
        tags=_tags(
            results.plan,
            str(train.id),
            "kd" if point.alpha > 0 else "sft" if point.labels == "gold" else "seqkd",
            artifact,
            store,
        )
        | {EARLY_TAG: early},
        entries=[*_curve_entries(curve), *_checkpoint_entries(checkpoints, models), *finals],
        files=_files(train, checkpoints) | _examples(point, results, store),
    )


def _reference(role: str, model: Step, artifact: Artifact, results: Results, store: Store) -> WantedRun:
    """An untrained student or the teacher. It has none of the axes' params, so charts of those show points only."""
    identity, name = _reference_identity(role, model), reference_name(role, results.plan)[:NAME_LENGTH]
    params = {"family": results.plan.grid.family}
    return WantedRun(
        identity=identity,
        name=name,
        status="FINISHED",
        started=_milliseconds(artifact.folder / RECORD),
        ended=_milliseconds(artifact.folder / DONE),
        params=params,
        tags=_tags(results.plan, identity, "reference", artifact, store),
        entries=_finals(role, results, store, {None: WantedModel(str(model.id), _name_of_model(name), params)}),
        files=_files(model, results.of(role)) | _examples(role, results, store),
    )


def _curve_entries(curve: Curve) -> Iterator[Entry]:
    """A curve, thinned out so that a thousand long runs stay quick to compare: the store and the report have all of it.

    Which steps are shown does not depend on how many there will be; held-out losses are shown wherever they were taken.
    """
    for row in curve:
        every = 1 << ((int(row["step"]) - 1) // WHOLE).bit_length()
        if row["step"] % every and "heldout_ce" not in row:
            continue
        values = {metric: row[name] for name, metric in CURVES.items() if name in row and math.isfinite(row[name])}
        if values:
            yield Entry(int(row["examples"]), values)


def _checkpoint_entries(checkpoints: list[Checkpoint], models: Models) -> Iterator[Entry]:
    for checkpoint in checkpoints:
        if checkpoint.examples is not None:
            yield from _score_entries(checkpoint, checkpoint.examples, "ckpt/", models)


def _finals(subject: Subject, results: Results, store: Store, models: Models) -> list[Entry]:
    """The final metrics that are settled: the best checkpoint is known once all of them are scored."""
    if results.plan.grid.report.checkpoint != "last":
        choices = Choices(results.plan, store)
        measures = [score.measure for score in results.plan.scores if score.subject == subject]
        measures = [step for step in measures if choices.wants(step)]
        if any(step.state(store) != "done" for step in measures):
            return []
    final = results.final(subject)
    return list(_score_entries(final, 0, "", models)) if final else []


def _score_entries(checkpoint: Checkpoint, step: int, prefix: str, models: Models) -> Iterator[Entry]:
    """One entry a metric: scores come one by one."""
    for name, score in checkpoint.scores.items():
        if math.isfinite(score.value):
            yield Entry(step, {prefix + name: score.value}, models[checkpoint.position])


def _tags(plan: Plan, identity: str, kind: str, artifact: Artifact | None, store: Store) -> dict[str, str]:
    facts = {
        f"kdray.{'version' if name == 'kdray' else name}": str(value)
        for name, value in (artifact.facts if artifact else {}).items()
    }
    return facts | {
        POINT_TAG: identity,
        IN_GRID_TAG: "true",
        "kdray.grid": plan.grid.name,
        "kdray.kind": kind,
        "kdray.store": str(store.root),
    }


def _files(step: Step, checkpoints: list[Checkpoint]) -> dict[str, Any]:
    """What the run's numbers rest on: the payload behind its id, and all scores with standard errors and counts."""
    scores = [
        {
            "position": c.position,
            "examples": c.examples,
            "scores": {name: vars(score) for name, score in c.scores.items()},
        }
        for c in checkpoints
        if c.scores
    ]
    return {RECORD: step.payload} | ({SCORES: {"checkpoints": scores}} if scores else {})


def _examples(subject: Subject, results: Results, store: Store) -> dict[str, Any]:
    """The scores of every example at the final checkpoint, and the first answers to each task as a person reads
    them.
    """
    final, files = results.final(subject), {}
    for score in results.plan.scores:
        if final is None or score.subject != subject or score.position != final.position:
            continue
        if artifact := score.measure.id and store.get(score.measure.key):
            files[f"examples/{score.measure.slug}.parquet"] = rows_file(artifact.path)
        if score.generate and (artifact := score.generate.id and store.get(score.generate.key)):
            files[f"answers/{score.generate.slug}.json"] = {"answers": _first_answers(artifact.path)}
    return files


def _first_answers(folder: Path) -> list[dict[str, Any]]:
    return [row | {"source": row["source"][:SOURCE_SHOWN]} for row in answers_to_show(folder, ANSWERS_SHOWN)]


def _summary_identity(plan: Plan) -> str:
    return f"report:{plan.grid.name}"


def _reference_identity(role: str, model: Step) -> str:
    return f"reference:{role}:{model.id}"  # with the role: a model may be its own teacher


def _name(point: Point) -> str:
    """`a0.1 lr3e-4 b4 s0`, `seq a1 lr3e-4 b4 s0`; cut where the page would cut it."""
    gold = "" if point.alpha > 0 else "sft "
    share = "" if point.on_policy == 1 else f"{point.on_policy:g}"
    labels = {"gold": gold, "teacher": "seq ", "both": "both ", "student": f"onp{share} "}[point.labels]
    alpha = f"a{point.alpha:g} " if point.alpha > 0 else ""
    teacher = f"{point.teacher} " if point.teacher else ""
    aligned = "cites " if point.aligned else ""
    return f"{aligned}{labels}{alpha}{teacher}lr{_brief(point.lr)} b{point.batch} s{point.seed}"[:NAME_LENGTH].rstrip()


def _name_of_model(run: str) -> str:
    """A run's name without what MLflow refuses in that of a model."""
    return re.sub(r"[/:.%\"'\s]+", "-", run)


def _brief(value: float) -> str:
    """The shortest way to write six digits: 0.5, 3e-4."""
    digits, _, exponent = f"{value:.5e}".partition("e")
    scientific = f"{float(digits):g}e{int(exponent)}"
    return min(f"{value:g}", scientific, key=len)


def _milliseconds(path: Path) -> int:
    return path.stat().st_mtime_ns // 1_000_000
