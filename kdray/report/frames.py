"""Every score of a grid, or of a store, as pandas tables: what `kdray.results(path)` returns.

Of a grid these are the scores that it needs today; of a store all that it holds, those of earlier grids too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdray.artifacts.scores import read_scores
from kdray.plan import Plan, make_plan
from kdray.plan.inputs import recorded
from kdray.plan.steps import Subject
from kdray.report.arms import arm_of
from kdray.report.items import items_of
from kdray.report.results import collect
from kdray.report.table import reference_name
from kdray.spec import load_grid
from kdray.spec.decodings import decoding_label
from kdray.spec.errors import InputError
from kdray.spec.metric_names import MetricName
from kdray.spec.points import Point
from kdray.spec.sections.base import Labels, Use
from kdray.store import Artifact, Key, Outer, Store

if TYPE_CHECKING:
    from pandas import DataFrame

MODEL = {  # what says of which model a row is, and as what it is kept
    "model": "str",
    "arm": "str",
    "labels": "str",
    "teacher": "str",
    "alpha": "float64",
    "lr": "float64",
    "batch": "Int64",
    "seed": "Int64",
    "smoothing": "float64",
    "temperature": "float64",
    "on_policy": "float64",
    "rows": "str",
    "aligned": "boolean",
    "checkpoint": "float64",
    "examples": "Int64",
    "final": "boolean",
}
MEASURED = {"task": "str", "decoding": "str", "metric": "str"}
FRAME = {**MODEL, **MEASURED, "column": "str", "value": "float64", "stderr": "float64", "n": "Int64"}
ITEMS = {**MODEL, **MEASURED, "item": "str", "value": "float64"}


@dataclass(frozen=True)
class Measured:
    """One `measure` artifact, and of which model, task and decoding it is; `point` is None of a reference model."""

    model: str
    point: Point | None
    checkpoint: float | None
    examples: int | None
    final: bool | None
    task: str
    decoding: str
    artifact: Artifact

    @property
    def fields(self) -> dict[str, Any]:
        """The columns of `MODEL`, `task` and `decoding`."""
        axes = {**vars(self.point), "arm": arm_of(self.point).name} if self.point else {}
        alike = ("model", "checkpoint", "examples", "final", "task", "decoding")
        return axes | {name: getattr(self, name) for name in alike}


class Scores:
    """The scores of a grid or of a store, read when a table is asked for."""

    def __init__(self, path: str | Path) -> None:
        """`path`: a grid file, or the folder of a store, such as that of `kdray score`.

        Raises:
            InputError: the grid is wrong, or the folder is no store.
        """
        path = Path(path)
        if path.is_dir():
            self.store, self._plan = Store(path), None
            if not (path / "measure").is_dir():
                raise InputError(
                    "results", f"no scores in {path}", "give a grid file, or the folder of a store that has some"
                )
        else:
            grid = load_grid(path)
            self.store = Store(grid.runtime.store)
            self._plan = make_plan(grid, Outer(self.store.root))

    def frame(self) -> DataFrame:
        """One row a model, checkpoint, task, decoding and metric; without rows where nothing is measured yet.

        Columns: `model` (a point's slug, or a reference model's name), `arm` (its row in the report), the axes
        `labels`, `teacher`, `alpha`, `lr`, `batch`, `seed`, `smoothing`, `temperature`, `on_policy`, `rows`, `aligned`
        (empty of reference models), `checkpoint` (epochs or steps), `examples` (sequences seen until then), `final`
        (whether tables take this checkpoint; empty of a store, which has no such choice), `task`, `decoding`,
        `metric`, `column` (its name in tables), `value`, `stderr` over the `n` examples.

        Raises:
            InputError: a file is damaged, or what a score was made from is gone.
        """
        rows = []
        for found in self._measured():
            for metric, score in read_scores(found.artifact.path).items():
                column = str(MetricName(found.task, metric, found.decoding))
                rows.append({**found.fields, "metric": metric, "column": column, **vars(score)})
        return _table(rows, FRAME)

    def items(self, task: str | None = None) -> DataFrame:
        """One row an item (a question, a document) of every score, or of one task's: `value` as the metric gave it.

        `item` is the example's number in its source, by which two models can be paired; in a group of lm-eval's its
        task stands before it. `value` is empty where the metric failed on the item. lm-eval's accuracies are 0 or 1
        here, and percent in `frame()`; what no item has as a number is left out, such as a calibration error.

        Raises:
            InputError: a file is damaged, or what a score was made from is gone.
        """
        rows = []
        for found in self._measured():
            if task in (None, found.task):
                for metric, item, value in items_of(found.artifact.path):
                    rows.append({**found.fields, "metric": metric, "item": item, "value": value})
        return _table(rows, ITEMS)

    def _measured(self) -> Iterator[Measured]:
        return of_grid(self._plan, self.store) if self._plan else of_store(self.store)


def of_grid(plan: Plan, store: Store) -> Iterator[Measured]:
    """What is measured of `plan`, in the order of its tasks."""
    results = collect(plan, store)
    checkpoints = {(checkpoint.subject, checkpoint.position): checkpoint for checkpoint in results.checkpoints}
    finals: dict[Subject, float | None] = {}
    for subject in {subject for subject, _ in checkpoints}:
        if final := results.final(subject):
            finals[subject] = final.position
    for score in plan.scores:
        subject, artifact = score.subject, score.measure.id and store.get(score.measure.key)
        if artifact:
            point = subject if isinstance(subject, Point) else None
            yield Measured(
                model=point.slug if point else reference_name(str(subject), plan),
                point=point,
                checkpoint=score.position,
                examples=checkpoints[subject, score.position].examples,
                final=subject in finals and finals[subject] == score.position,
                task=score.task.name,
                decoding=score.decoding,
                artifact=artifact,
            )


def of_store(store: Store) -> Iterator[Measured]:
    """What is measured in `store`, by the records of what it was made from; teachers have their artifacts' names."""
    keys = {key.id: key for key, _ in store.folders()}
    for key in sorted((key for key in keys.values() if key.kind == "measure"), key=lambda key: (key.slug, key.id)):
        artifact = store.get(key)
        if artifact is None:
            continue
        try:
            yield _traced(store, keys, artifact)
        except KeyError as gone:
            reason = f"was made from {gone.args[0]}, which the store no longer has"
            raise InputError(str(artifact.folder), reason, "give the grid file instead of the store") from None


def _traced(store: Store, keys: Mapping[str, Key], artifact: Artifact) -> Measured:
    record = store.record(artifact.key.id)
    asked = store.record(record["inputs"]["outputs"]) if "outputs" in record["inputs"] else record
    id, decoding = asked["inputs"]["model"], asked["params"].get("decoding", "")
    if isinstance(decoding, dict):
        decoding = decoding_label(Use.model_construct(name=decoding["name"], params=decoding["params"]))
    model = store.record(id)
    if model["step"] == "student":
        train, exported = store.record(model["inputs"]["point"]), store.get(keys[id])
        point, checkpoint = _point(store, keys, train), model["params"]["at"]
        examples = exported.facts["examples"] if exported else None
    else:
        point, checkpoint, examples = None, None, None
    name = point.slug if point else keys[id].slug
    return Measured(name, point, checkpoint, examples, None, asked["params"]["task"]["name"], decoding, artifact)


def _point(store: Store, keys: Mapping[str, Key], train: Mapping[str, Any]) -> Point:
    """The cell of its grid that a point was."""
    if "simpo" in train["params"]:
        before = store.record(store.record(train["inputs"]["student"])["inputs"]["point"])
        return replace(_point(store, keys, before), aligned=True)
    data = store.record(train["inputs"]["data"])
    labels: Labels = "gold" if data["step"] == "prepare" else "both" if "answers" in data["inputs"] else "teacher"
    labels = "student" if "sampling" in train["params"] else labels
    given = recorded(train["inputs"], "soft_labels") or recorded(train["inputs"], "teacher")
    while not given and data["step"] == "augment":  # taught by answers alone
        given = [data["inputs"]["teacher"]] if "teacher" in data["inputs"] else []
        data = store.record(data["inputs"]["answers"]) if "answers" in data["inputs"] else data
    records = [(id, store.record(id)) for id in given]
    teachers = [record["inputs"]["teacher"] if record["step"] == "soften" else id for id, record in records]
    params = train["params"]
    axes = {name: params[name] for name in ("alpha", "lr", "batch", "seed")}
    axes |= {
        "smoothing": params.get("smoothing", 0.0),
        "temperature": params.get("objective", {}).get("temperature", 1.0),
        "on_policy": params.get("on_policy", 0.0),
        "rows": params.get("rows", "all"),
    }
    return Point(**axes, labels=labels, teacher="+".join(keys[id].slug for id in teachers))


def _table(rows: list[dict[str, Any]], columns: Mapping[str, str]) -> DataFrame:
    import pandas

    return pandas.DataFrame(
        {name: pandas.Series([row.get(name) for row in rows], dtype=kind) for name, kind in columns.items()}
    )
