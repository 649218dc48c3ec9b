"""Read a grid file: strict YAML, then the schema, then the components that it names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from yaml.composer import ComposerError

from kdray.spec import declare
from kdray.spec.components import asks_grids_rows, bind_use, component, components, declared
from kdray.spec.decodings import GUIDE, decoding_label, guided_by_grids_lens, references
from kdray.spec.errors import InputError, did_you_mean
from kdray.spec.grid import Grid, Lens, Scoring, Section, Teacher, Use
from kdray.spec.lens import bind_lens, rated_by_lens
from kdray.spec.metric_names import CALIBRATION, MetricName, chosen_by_answers
from kdray.spec.metrics import bind_metrics, metrics_of, scores_of
from kdray.spec.points import expand


def load_grid(path: str | Path) -> Grid:
    """The grid in the file at `path`, valid in itself (nothing outside the file is looked at).

    Raises:
        InputError: names the first field that is wrong, what was found there and what is allowed.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError("grid", f"no file {path}", "give the path of a YAML file, for example grids/quickstart.yaml") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("grid", f"{path} cannot be read ({error})", "give a UTF-8 YAML file") from None
    return parse_grid(text, str(path))


def parse_grid(text: str, where: str = "grid") -> Grid:
    """As `load_grid`, from the text itself; `where` names the file in errors about its YAML."""
    tree = _read_yaml(text, where)
    try:
        grid = Grid.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise _as_input_error(error.errors()) from None
    grid = _bind_components(grid)
    _check_report(grid)
    _check_teachers(grid)
    points = expand(grid)
    if not grid.all_teachers and any(point.alpha > 0 for point in points):
        raise InputError("axes.alpha", "alpha > 0 without a teacher", "add a teacher section, or use alpha: [0]")
    if not grid.all_teachers and any(point.labels != "gold" for point in points):
        raise InputError("axes.labels", "a teacher's answers without a teacher", "add a teacher section, or use labels: [gold]")
    if any(point.labels != "gold" and point.teacher in grid.ensembles for point in points):
        raise InputError("axes.labels", "answers of an ensemble", "ensembles give soft labels only: use labels: [gold]")
    recipe = component(declare.Recipe, grid.data.recipe.name, "data.recipe")
    if not recipe.declared.prompts and any(point.labels != "gold" for point in points):
        raise InputError("axes.labels", f"answers to rows of the recipe '{recipe.name}', which ask nothing", "use labels: [gold]")
    _check_objective(grid, max(point.alpha for point in points))
    return grid


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses aliases, tags and duplicate keys, and reads plain words and numbers as YAML 1.2 does.

    So 1e-5 is a number, and `no`, 1:30, 010 and 2020-01-01 are not a bool, 90, 8 and a date.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own way to say it

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise ComposerError(None, None, f"the YAML alias *{event.anchor}", event.start_mark, "write the value out")
        if (tag := getattr(event, "tag", None)) is not None:
            raise ComposerError(None, None, f"the YAML tag {tag}", event.start_mark, "grid files use no tags")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a string", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key '{key}'", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("null", r"(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"(true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)$", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$", list("-+0123456789.")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def _read_yaml(text: str, where: str) -> dict[str, Any]:
    try:
        tree = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise InputError(f"{where}:{line}", str(error.problem), error.note or "write plain YAML with each key once") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(where, f"not YAML ({str(error).splitlines()[0]})", "write plain YAML") from None
    if not isinstance(tree, dict):
        raise InputError(where, f"holds {type(tree).__name__}, not a mapping", f"top-level fields: {', '.join(Grid.model_fields)}")
    return tree


def _as_input_error(errors: list[ErrorDetails]) -> InputError:
    """One of pydantic's complaints in our one line: a misspelt field before the one that is then missing."""
    error = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    loc = error["loc"]
    field = _field(error) or "grid"
    found = error["input"]
    shown = "empty" if found in ([], {}, "") else json.dumps(found, default=str)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    match error["type"]:
        case "extra_forbidden":
            return InputError(field, "unknown field", did_you_mean(str(loc[-1]), _siblings(loc)))
        case "missing":
            return InputError(field, "missing", "this field is required")
        case "value_error":
            cause = error.get("ctx", {}).get("error")
            if isinstance(cause, InputError):
                return InputError(".".join(filter(None, (_field(error), cause.field))), cause.found, cause.allowed)
            return InputError(field, shown, str(cause))
        case "json_invalid" if "recursion" in error["msg"]:
            return InputError(field, "is nested too deep", "write plain YAML")
        case "json_invalid":  # the rest of JSON was written by us: a lone half of a surrogate pair is all that can be wrong
            return InputError(field, "holds text that is no Unicode", "write every character out, not as \\ud800")
        case _:
            return InputError(field, shown, _allowed([other["msg"] for other in errors if _field(other) == _field(error)]))


def _allowed(messages: list[str]) -> str:
    """pydantic's words in ours: of a union, one message a branch."""
    must = [re.sub(r"^\w+ should ", "must ", message).partition(" after validation")[0] for message in dict.fromkeys(messages)]
    text = " or ".join([must[0], *(other.removeprefix("must be ") for other in must[1:])])
    return text.replace("valid array", "list").replace("an object", "a mapping")


def _field(error: ErrorDetails) -> str:
    """The path of the field as it stands in the file."""
    return ".".join(str(part) for part in error["loc"] if not _is_branch(part))


def _is_branch(part: int | str) -> bool:
    """Whether a part of pydantic's location names a branch of a union rather than a field."""
    return isinstance(part, str) and (part.startswith(("literal[", "constrained-", "function-")) or part in {"int", "float", "str"})


def _siblings(loc: tuple[int | str, ...]) -> list[str]:
    """The fields that are allowed where `loc` points."""
    model: type[BaseModel] = Grid
    for part in loc[:-1]:
        if not isinstance(part, str) or part not in model.model_fields:
            continue
        annotation = model.model_fields[part].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(model.model_fields)


def _bind_components(grid: Grid) -> Grid:
    """The grid with every component's parameters checked and its defaults filled in."""

    data = grid.data.model_copy(
        update={
            "recipe": bind_use(grid.data.recipe, declare.Recipe, "data.recipe"),
            "template": bind_use(grid.data.template, declare.Template, "data.template"),
        }
    )
    component(declare.Form, grid.soft_labels.form.name, "soft_labels.form")
    soft_labels = grid.soft_labels.model_copy(update={"form": bind_use(grid.soft_labels.form, declare.Form, "soft_labels")})
    objective = grid.objective.model_copy(update={"loss": bind_use(grid.objective.loss, declare.Loss, "objective.loss")})
    train = grid.train.model_copy(update={"schedule": bind_use(grid.train.schedule, declare.Schedule, "train.schedule")})

    def tuned(teacher: Teacher, where: str) -> Teacher:
        if not teacher.tune:
            return teacher
        schedule = bind_use(teacher.tune.schedule, declare.Schedule, f"{where}.tune.schedule")
        return teacher.model_copy(update={"tune": teacher.tune.model_copy(update={"schedule": schedule})})

    runtime = grid.runtime.model_copy(update={"engine": bind_use(grid.runtime.engine, declare.Engine, "runtime.engine")})
    return grid.model_copy(
        update={
            "data": data,
            "soft_labels": soft_labels,
            "objective": objective,
            "train": train,
            "teacher": grid.teacher and tuned(grid.teacher, "teacher"),
            "teachers": {name: tuned(teacher, f"teachers.{name}") for name, teacher in grid.teachers.items()},
            "score": bind_scoring(grid.score, has_lens=grid.lens is not None),
            "lens": grid.lens and bind_lens(grid.lens, grid.score.tasks, grid.family),
            "runtime": runtime,
        }
    )


def bind_scoring(score: Scoring, *, has_lens: bool = False) -> Scoring:
    """The section with every task, metric and decoding checked, and their defaults filled in; `has_lens`: the grid makes one.

    Raises:
        InputError: an unknown one, one that is named twice, a wrong parameter, or a guide that is not there.
    """
    tasks = [bind_use(use, declare.Task, f"score.tasks.{i}") for i, use in enumerate(score.tasks)]
    for i, task in enumerate(tasks):
        if task.name in [other.name for other in tasks[:i]]:
            raise InputError(f"score.tasks.{i}", f"'{task.name}' a second time", "name every task once")
    decoding = [bind_use(use, declare.Decoding, f"score.decoding.{i}") for i, use in enumerate(score.decoding)]
    for i, label in enumerate(labels := [decoding_label(use) for use in decoding]):
        if label in labels[:i]:
            raise InputError(f"score.decoding.{i}", f"'{label}' a second time", "give every decoding once")
        references(decoding[i], f"score.decoding.{i}")
        if guided_by_grids_lens(decoding[i]) and not has_lens:
            allowed = "add the section `lens` (`kdray score`: --lens), or give file: and a path"
            raise InputError(f"score.decoding.{i}.{GUIDE}", "'lens', but there is none", allowed)
        how = declared(declare.Decoding, decoding[i].name)
        for task in tasks:
            asked = declared(declare.Task, task.name)
            if isinstance(asked, declare.AnswerTask) and (lacking := set(how.needs).difference(asked.gives)):
                allowed = f"it needs tasks with a {', '.join(lacking)}: score '{task.name}' in a grid of its own"
                raise InputError(f"score.decoding.{i}", f"'{decoding[i].name}' of the task '{task.name}'", allowed)
        if score.engine == "vllm" and not how.vllm:
            able = ", ".join(name for name, other in components(declare.Decoding).items() if other.declared.vllm)
            raise InputError(f"score.decoding.{i}", f"'{decoding[i].name}' with score.engine vllm", f"vllm decodes {able}")
    return score.model_copy(update={"tasks": tasks, "metrics": bind_metrics(score.metrics, tasks), "decoding": decoding})


class _Asked(Section):
    """The sections that stand behind `kdray score`."""

    score: Scoring
    lens: Lens | None = None


def parse_scoring(
    tasks: str, metrics: str, decoding: str, lens: str | None, limit: int | None, template: str, **fields: Any
) -> tuple[Scoring, Use, Lens | None]:
    """A section `score` from a command line, `xsum, {name: arc_easy, limit: 10}`, the template of prompts, and a lens by reference.

    `limit` is for tasks without their own.

    Raises:
        InputError: as for the section in a grid file, or a task that needs a grid's data.
    """
    text = f"score: {{tasks: [{tasks}], metrics: [{metrics}], decoding: [{decoding}]}}"
    tree: dict[str, Any] = {"score": _read_yaml(text, "--tasks, --metrics, --decoding")["score"] | fields}
    try:
        asked = _Asked.model_validate_json(json.dumps(tree | ({"lens": {"trained": lens}} if lens is not None else {})))
    except ValidationError as error:
        raise _as_input_error(error.errors()) from None
    score = asked.score
    for i, task in enumerate(score.tasks):
        found = component(declare.Task, task.name, f"score.tasks.{i}")
        if asks_grids_rows(found.declared):
            raise InputError(f"score.tasks.{i}", f"'{task.name}' is about a grid's own data", "leave it out")
        if limit is not None and "limit" in found.parameters:
            task.params.setdefault("limit", limit)
    bound = bind_scoring(score, has_lens=lens is not None)
    ready = asked.lens and bind_lens(asked.lens, bound.tasks, family="models")
    return bound, parse_use(template, declare.Template, "--template"), ready


def _check_teachers(grid: Grid) -> None:
    """Whether the names of teachers and ensembles make sense; that of the axis is checked where it is read."""
    if grid.teacher and grid.teachers:
        raise InputError("teachers", "beside `teacher`", "name all of them in `teachers`")
    for name in [*grid.teachers, *grid.ensembles]:
        if name in ("student", "teacher"):
            raise InputError(f"teachers.{name}", "a name with a meaning of its own", "choose another")
    form = grid.soft_labels.form.name
    if grid.ensembles and declared(declare.Form, form).tempered:
        raise InputError("ensembles", f"with soft_labels.form {form}", f"their probabilities need the form {_untempered()}")
    for ensemble, weights in grid.ensembles.items():
        if ensemble in grid.teachers:
            raise InputError(f"ensembles.{ensemble}", "is the name of a teacher too", "choose another")
        for name in weights:
            if name not in grid.teachers:
                raise InputError(f"ensembles.{ensemble}.{name}", "no such teacher", did_you_mean(name, grid.teachers))


def _check_objective(grid: Grid, largest_alpha: float) -> None:
    """Whether weights, loss and soft labels go together."""
    if grid.objective.weighting == "convex" and largest_alpha > 1:
        raise InputError("axes.alpha", f"{largest_alpha:g} with objective.weighting convex", "must be at most 1")
    form, losses = grid.soft_labels.form.name, components(declare.Loss)
    if declared(declare.Form, form).tempered and not losses[grid.objective.loss.name].declared.sparse:
        able = ", ".join(name for name, loss in losses.items() if loss.declared.sparse)
        allowed = f"with soft labels of this form: {able}; for every loss: form {_untempered()}"
        raise InputError("objective.loss", f"'{grid.objective.loss.name}' with soft_labels.form {form}", allowed)


def _untempered() -> str:
    """The forms of soft labels that every temperature can be had from."""
    *others, last = [name for name, form in components(declare.Form).items() if not form.declared.tempered]
    return f"{', '.join(others)} or {last}"


def parse_use(text: str, kind: type[declare.Declared], field: str) -> Use:
    """A component from a command line, as in a grid file: `hhem`, or `{name: hhem, batch: 4}`.

    Raises:
        InputError: there is none of that name, or a wrong parameter.
    """
    tree = _read_yaml(f"{{{kind.word}: {text}}}", field)
    if len(tree) != 1:
        raise InputError(field, f"'{text}'", f"name one {kind.word}")
    try:
        return bind_use(Use.model_validate(tree[kind.word]), kind, field)
    except ValidationError:
        raise InputError(field, f"'{text}'", "write a name, or {name: ..., parameter: ...}") from None


def _is_lm_evals(primary: str, tasks: Iterable[str]) -> bool:
    """Whether this is a metric of a task that lm-eval alone knows, and with it what it measures."""
    task, _, metric = primary.rpartition("/")
    return bool(metric) and task in tasks and ":" in task


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
    if grid.report.primary is not None and not _is_lm_evals(grid.report.primary, metrics):
        names = [MetricName(task, name, label) for task, names in metrics.items() for name in names for label in _labels(task, grid)]
        known = [name.written for name in names]
        if grid.report.primary not in known:
            raise InputError("report.primary", f"nothing measures '{grid.report.primary}'", did_you_mean(grid.report.primary, known))
    able = [task.name for task in grid.score.tasks if isinstance(declared(declare.Task, task.name), declare.ChoiceTask)]
    for name in grid.report.margin:
        if name not in able:
            raise InputError(f"report.margin.{name}", "none of the grid's multiple-choice tasks", did_you_mean(name, able))
    if (chosen := grid.report.checkpoint) != "last" and grid.score.checkpoints == "last":
        raise InputError("report.checkpoint", f"{chosen} with score.checkpoints last", "score all of them, or report the last")
    if chosen == "best_answers":
        _check_answers_to_choose_by(grid)


def _check_answers_to_choose_by(grid: Grid) -> None:
    """Whether there are greedy answers to held-out rows, by which a checkpoint may be chosen."""
    field, by = "report.checkpoint", chosen_by_answers()
    if by.task not in [task.name for task in grid.score.tasks]:
        raise InputError(field, f"best_answers without the task {by.task}", "add it to score.tasks")
    if by.decoding not in (known := _labels(by.task, grid)):
        raise InputError(field, f"best_answers with answers by {', '.join(known)}", f"add {by.decoding} to score.decoding")
    if grid.data.test:
        allowed = f"no choice may see the test rows, which {by.task} asks: data.test 0, or best_heldout"
        raise InputError(field, f"best_answers with data.test {grid.data.test}", allowed)


def _labels(task: str, grid: Grid) -> list[str]:
    """How a task's answers are decoded, if it has any."""
    generated = isinstance(declared(declare.Task, task), declare.AnswerTask)
    return [decoding_label(use) for use in grid.score.decoding] if generated else [""]
