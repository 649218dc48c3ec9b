"""What fields of a grid say together: each may be right by itself, and no experiment come of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from kdray.spec import declare
from kdray.spec.components import component, components, declared
from kdray.spec.decodings import decoding_label
from kdray.spec.errors import InputError, did_you_mean
from kdray.spec.grid import Grid
from kdray.spec.lens import rated_by_lens
from kdray.spec.metric_names import CALIBRATION, MetricName, chosen_by_answers
from kdray.spec.metrics import metrics_of, scores_of
from kdray.spec.points import Point, check_priority, expand
from kdray.spec.sections.training import SamplingSection


def check_fields(grid: Grid) -> None:
    """Whether the fields of a grid, whose components are bound, go together.

    Raises:
        InputError: two of them do not.
    """
    _check_report(grid)
    if grid.train.export.adapters and grid.score.engine == "vllm":
        raise InputError(
            "train.export.adapters", "true with score.engine vllm", "vllm reads plain models: leave one of them out"
        )
    _check_dropping(grid)
    _check_teachers(grid)
    points = expand(grid)
    _check_points(grid, points)
    _check_on_policy(grid, [point for point in points if point.samples])
    _check_aligned(grid, points)
    check_priority(grid.runtime.priority, points)
    _check_search(grid, points)
    _check_objective(grid, max(point.alpha for point in points))
    if grid.augment.quantise and grid.augment.engine == "vllm":
        raise InputError("augment.quantise", f"{grid.augment.quantise} with augment.engine vllm", "use transformers")


def _check_dropping(grid: Grid) -> None:
    """Whether there is anything to drop once it is scored."""
    if grid.runtime.drop_exports and len(grid.train.kept) == 1:
        raise InputError(
            "runtime.drop_exports",
            f"{grid.runtime.drop_exports} with one checkpoint a point, which is kept",
            "name earlier ones in train.keep, or leave it out",
        )


def _check_report(grid: Grid) -> None:
    """Whether the report speaks of tasks and metrics that the grid measures."""
    metrics = {}
    for task in grid.score.tasks:
        asked = declared(declare.Task, task.name)
        generated = isinstance(asked, declare.AnswerTask)
        names = [name for use in metrics_of(task, grid.score.metrics) for name in scores_of(use)] if generated else []
        kept = [*names, "empty", "unfinished"] if generated else []
        rated = ["fr"] if grid.lens and rated_by_lens(task) else []
        metrics[task.name] = list(dict.fromkeys([*asked.short, *kept, *rated]))
        if isinstance(asked, declare.ChoiceTask):
            metrics[task.name] += CALIBRATION
    names = [
        MetricName(task, name, label)
        for task, names in metrics.items()
        for name in names
        for label in _labels(task, grid)
    ]
    known = [name.written for name in names]
    primary = grid.report.primary
    if primary is not None and primary not in known and not _is_lm_evals(primary, metrics):
        raise InputError("report.primary", f"nothing measures '{primary}'", did_you_mean(primary, known))
    able = [task.name for task in grid.score.tasks if isinstance(declared(declare.Task, task.name), declare.ChoiceTask)]
    for name, margin in grid.report.margin.items():
        field = f"report.margin.{name}"
        if "/" in name:
            if name not in known and not _is_lm_evals(name, metrics):
                raise InputError(field, "nothing measures it", did_you_mean(name, known))
        elif name not in able:
            raise InputError(field, "none of the grid's multiple-choice tasks", did_you_mean(name, able))
        elif margin > 1:
            raise InputError(field, f"{margin:g}", "a share of accuracy, 0 to 1: two points are 0.02")
        elif (short := declared(declare.Task, name).short) and "acc" not in short:
            raise InputError(field, "the task has no accuracy", f"name a score of it, {name}/{next(iter(short))}")
    if (chosen := grid.report.checkpoint) != "last" and grid.score.checkpoints == "last":
        raise InputError(
            "report.checkpoint", f"{chosen} with score.checkpoints last", "score all of them, or report the last"
        )
    if grid.score.checkpoints == "best_answers":
        _check_answers_to_choose_by(grid, "score.checkpoints")
    if grid.score.checkpoints.startswith("best") and chosen != grid.score.checkpoints:
        raise InputError(
            "report.checkpoint",
            f"{chosen} with score.checkpoints {grid.score.checkpoints}",
            f"only that one is scored: write {grid.score.checkpoints}",
        )
    if chosen == "best_answers":
        _check_answers_to_choose_by(grid, "report.checkpoint")


def _check_answers_to_choose_by(grid: Grid, field: str) -> None:
    """Whether there are greedy answers to held-out rows, by which a checkpoint may be chosen."""
    by = chosen_by_answers()
    if by.task not in [task.name for task in grid.score.tasks]:
        raise InputError(field, f"best_answers without the task {by.task}", "add it to score.tasks")
    if by.decoding not in (known := _labels(by.task, grid)):
        raise InputError(
            field, f"best_answers with answers by {', '.join(known)}", f"add {by.decoding} to score.decoding"
        )
    if grid.data.test:
        allowed = f"no choice may see the test rows, which {by.task} asks: data.test 0, or best_heldout"
        raise InputError(field, f"best_answers with data.test {grid.data.test}", allowed)


def _is_lm_evals(primary: str, tasks: Iterable[str]) -> bool:
    """Whether this is a metric of a task that lm-eval alone knows, and with it what it measures."""
    task, _, metric = primary.rpartition("/")
    if not metric or task not in tasks:
        return False
    asked = declared(declare.Task, task)
    return isinstance(asked, declare.ChoiceTask) and asked.named


def _labels(task: str, grid: Grid) -> list[str]:
    """How a task's answers are decoded or its choices scored, if it has any."""
    return [decoding_label(use) for use in grid.score.ways_of(declared(declare.Task, task))] or [""]


def _check_teachers(grid: Grid) -> None:
    """Whether the names of teachers and ensembles make sense; that of the axis is checked where it is read."""
    if grid.teacher and grid.teachers:
        raise InputError("teachers", "beside `teacher`", "name all of them in `teachers`")
    for name in [*grid.teachers, *grid.ensembles]:
        if name in ("student", "teacher"):
            raise InputError(f"teachers.{name}", "a name with a meaning of its own", "choose another")
    form = grid.soft_labels.form.name
    if grid.ensembles and declared(declare.Form, form).tempered:
        raise InputError(
            "ensembles", f"with soft_labels.form {form}", f"their probabilities need the form {_untempered()}"
        )
    for ensemble, weights in grid.ensembles.items():
        if ensemble in grid.teachers:
            raise InputError(f"ensembles.{ensemble}", "is the name of a teacher too", "choose another")
        for name in weights:
            if name not in grid.teachers:
                raise InputError(f"ensembles.{ensemble}.{name}", "no such teacher", did_you_mean(name, grid.teachers))


def _check_points(grid: Grid, points: Sequence[Point]) -> None:
    """Whether there are teachers for what the points learn."""
    if not grid.all_teachers and any(point.alpha > 0 for point in points):
        raise InputError("axes.alpha", "alpha > 0 without a teacher", "add a teacher section, or use alpha: [0]")
    if not grid.all_teachers and any(point.learns_answers for point in points):
        raise InputError(
            "axes.labels", "a teacher's answers without a teacher", "add a teacher section, or use labels: [gold]"
        )
    if any(point.learns_answers and point.teacher in grid.ensembles for point in points):
        raise InputError("axes.labels", "answers of an ensemble", "ensembles give soft labels only: use labels: [gold]")
    recipe = component(declare.Recipe, grid.data.recipe.name, "data.recipe")
    if some := next((point.rows for point in points if point.rows != "all"), None):
        if grid.data.curate is None:
            raise InputError("axes.rows", f"{some} without data.curate", "say how: `data: {curate: {tail: 0.06}}`")
        if not recipe.declared.prompts:
            found = f"{some} rows of the recipe '{recipe.name}', which are pieces of documents"
            raise InputError("axes.rows", found, "use rows: [all]")
    if not recipe.declared.prompts and any(point.labels != "gold" for point in points):
        raise InputError(
            "axes.labels", f"answers to rows of the recipe '{recipe.name}', which ask nothing", "use labels: [gold]"
        )


def _check_on_policy(grid: Grid, points: Sequence[Point]) -> None:
    """Whether there are `points` whose student samples responses, where the file speaks of them, and a teacher that can
    be asked about these.
    """
    if not points:
        given = {
            "axes.on_policy": grid.axes.on_policy,
            "objective.on_policy": grid.objective.on_policy != 1,
            "objective.sampling": grid.objective.sampling != SamplingSection(),
        }
        if said := next((field for field, there in given.items() if there), None):
            raise InputError(said, "given, and no point has labels student", "add student to axes.labels")
        return
    if not grid.all_teachers:
        raise InputError("axes.labels", "student without a teacher", "add a teacher section, or use labels: [gold]")
    for point in points:
        if point.alpha == 0:
            raise InputError(
                "axes.labels",
                f"student at alpha 0 ({point.slug})",
                "what it samples has no hard labels: exclude such points, or give those of labels student by include",
            )
        if point.smoothing and point.on_policy == 1:
            raise InputError(
                "axes.smoothing", f"{point.smoothing:g} of hard labels that no step has ({point.slug})", "must be 0"
            )
    form, engine = grid.soft_labels.form.name, grid.runtime.engine.name
    if grid.train.compile:
        raise InputError(
            "train.compile", "true with labels student", "every token that is sampled would compile anew: leave it out"
        )
    if grid.soft_labels.align:
        raise InputError(
            "soft_labels.align",
            f"{grid.soft_labels.align} with labels student",
            "what it samples is in its own tokens: take a teacher with the same tokenizer",
        )
    forms, engines = components(declare.Form), components(declare.Engine)
    if not forms[form].declared.asked:
        able = " or ".join(name for name, other in forms.items() if other.declared.asked)
        raise InputError(
            "soft_labels.form", f"{form} with labels student", f"what it samples is new at every step: use {able}"
        )
    if not engines[engine].declared.whole:
        able = " or ".join(name for name, other in engines.items() if other.declared.whole)
        raise InputError(
            "runtime.engine", f"{engine} with labels student", f"every worker needs all weights to sample: use {able}"
        )


def _check_aligned(grid: Grid, points: Sequence[Point]) -> None:
    """Whether points that are to be aligned can be: from others of the grid, and how is said."""
    aligned = [point for point in points if point.aligned]
    if not aligned:
        if grid.align:
            raise InputError("align", "given, and no point is aligned", "write `axes: {aligned: [false, true]}`")
        return
    if grid.align is None:
        raise InputError("axes.aligned", "true without align", "say how: `align: {lr: 5e-7, steps: 100}`")
    if lone := next((point for point in aligned if replace(point, aligned=False) not in points), None):
        found = f"{lone.slug} without the point that it trains on from"
        raise InputError("axes.aligned", found, "write [false, true]")
    recipe, engine = component(declare.Recipe, grid.data.recipe.name, "data.recipe"), grid.runtime.engine.name
    whole = [name for name, other in components(declare.Engine).items() if other.declared.whole]
    for field, found, wrong, allowed in (
        ("data.recipe", recipe.name, not recipe.declared.prompts, "its rows ask nothing: align none"),
        ("train.export.adapters", "true", grid.train.export.adapters, "export plain models"),
        ("score.engine", "vllm", grid.score.engine == "vllm", "vllm gives no citations: use transformers"),
        ("runtime.engine", engine, engine not in whole, f"use {' or '.join(whole)}"),
        ("runtime.drop_exports", "scored", bool(grid.runtime.drop_exports), "what is trained on is read again"),
        ("report.checkpoint", "best_heldout", grid.report.checkpoint == "best_heldout", "citing has another loss"),
        ("search", "asha", grid.search is not None, "citing has another loss: leave it out"),
    ):
        if wrong:
            raise InputError(field, f"{found} with axes.aligned true", allowed)


def _check_search(grid: Grid, points: Sequence[Point]) -> None:
    """Whether points can be compared before their end: by a loss that is measured there, and with others."""
    if grid.search is None:
        return
    end = f"the end at {grid.train.total:g} {grid.train.unit}"
    if len(grid.train.kept) == 1:
        found = f"{grid.search.name} by a loss that is measured once, at {end}"
        raise InputError("search", found, "name earlier checkpoints in train.keep")
    if not grid.search.rungs(grid.train):
        raise InputError(
            "search.grace",
            f"{grid.search.grace:g}, and no checkpoint is kept from there to {end}",
            f"train.keep has {', '.join(f'{at:g}' for at in grid.train.kept[:-1])}",
        )
    arms = [replace(point, lr=0.0, batch=0, seed=0) for point in points]
    if len(set(arms)) == len(arms):
        raise InputError(
            "search",
            f"{grid.search.name} among the points of an arm, of which each has one",
            "give several lr, batch or seeds, or leave it out",
        )


def _check_objective(grid: Grid, largest_alpha: float) -> None:
    """Whether weights, loss and soft labels go together."""
    if grid.objective.weighting == "convex" and largest_alpha > 1:
        raise InputError("axes.alpha", f"{largest_alpha:g} with objective.weighting convex", "must be at most 1")
    _check_alignment(grid)
    form, losses = grid.soft_labels.form.name, components(declare.Loss)
    if declared(declare.Form, form).tempered and not losses[grid.objective.loss.name].declared.sparse:
        able = ", ".join(name for name, loss in losses.items() if loss.declared.sparse)
        allowed = f"with soft labels of this form: {able}; for every loss: form {_untempered()}"
        raise InputError("objective.loss", f"'{grid.objective.loss.name}' with soft_labels.form {form}", allowed)


def _check_alignment(grid: Grid) -> None:
    """Whether what is compared can be, where the teacher has other tokens than the student."""
    loss, align = grid.objective.loss.name, grid.soft_labels.align
    compares_any = declared(declare.Loss, loss).any_vocabulary
    if not align:
        if compares_any:
            allowed = "say which tokens belong together: soft_labels.align text or position"
            raise InputError("objective.loss", f"'{loss}' without soft_labels.align", allowed)
        return
    if align == "position" and not compares_any:
        able = ", ".join(name for name, loss in components(declare.Loss).items() if loss.declared.any_vocabulary)
        allowed = f"which compares tokens by their ids: write text, or the loss {able}"
        raise InputError("soft_labels.align", f"position with objective.loss '{loss}'", allowed)
    if grid.ensembles:
        raise InputError("ensembles", "with soft_labels.align", "the average of teachers needs one tokenizer")
    recipe = grid.data.recipe.name
    if not component(declare.Recipe, recipe, "data.recipe").declared.prompts:
        raise InputError("soft_labels.align", f"rows of the recipe '{recipe}', which have no responses", "leave it out")
    if not compares_any and any(point.temperature != 1 for point in expand(grid)):
        allowed = "must be 1: it would be that of the teacher's tokens in one form, of the student's in another"
        raise InputError("objective.temperature", f"not 1 with soft_labels.align {align}", allowed)


def _untempered() -> str:
    """The forms of soft labels that every temperature can be had from."""
    *others, last = [name for name, form in components(declare.Form).items() if not form.declared.tempered]
    return f"{', '.join(others)} or {last}"
