"""The steps that score: every task on every checkpoint and reference model."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from kdray.plan.steps import Plan, ScoreStep, Step, Subject, labels_of, make_step, named, slug_of, template_of
from kdray.spec import declare
from kdray.spec.components import asks_grids_rows, component, declared
from kdray.spec.decodings import GUIDE, decoding_label, guided_by_grids_lens, references
from kdray.spec.grid import Grid, LensSection, OwnAnswers, Use
from kdray.spec.lens import FIT_VERSION, RATE_VERSION, rated_by_lens
from kdray.spec.metrics import ANSWERS_VERSION, metrics_of
from kdray.spec.points import Point
from kdray.spec.refs import Reference, parse_reference
from kdray.store import Outer


def score_steps(plan: Plan, outer: Outer) -> Iterator[ScoreStep]:
    """Those of `plan`, task by task.

    Raises:
        InputError: a local file that a task, metric or decoding names does not exist.
    """
    grid = plan.grid
    wanted = [role for role in plan.models if not plan.points or ("student" if role == "student" else "teacher") in grid.score.references]
    subjects: list[tuple[Subject, float | None, Step]] = [(role, None, plan.models[role]) for role in wanted]
    for point in plan.points:
        exports = list(point.exports.items())
        subjects += [(point.point, at, step) for at, step in (exports if grid.score.checkpoints == "all" else exports[-1:])]
    # A lens fits one shape of model: in a grid the students'; where models are only scored, each of them.
    rated = ["student"] if plan.points else wanted
    lenses = {role: _lens(plan, grid.lens, plan.models[role], outer) for role in rated} if grid.lens else {}
    for index, task in enumerate(grid.score.tasks):
        asked = _asked(plan, task, f"score.tasks.{index}", outer)
        answered = isinstance(declared(declare.Task, task.name), declare.AnswerTask)
        ways = _ways(plan, asked, outer) if answered else []
        metrics = _metrics(metrics_of(task, grid.score.metrics), outer) if answered else []
        for subject, position, model in subjects:
            lens = lenses.get("student" if isinstance(subject, Point) else subject)
            scores = list(_score(task, asked, ways, metrics, subject, position, model, lens))
            yield from scores
            if lens and rated_by_lens(task):
                # several measurements may share their answers, whose rate is one
                yield from (_factual_rate(score, model, lens) for score in {id(score.generate): score for score in scores}.values())


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What a task asks of any model: the parameters of its steps, their inputs beside the model, and where its data are."""

    params: dict[str, Any] | None
    inputs: Mapping[str, Step]
    source: Reference | None
    files: Mapping[str, Reference]


@dataclasses.dataclass(frozen=True)
class _Way:
    """How a task's answers are decoded: its label, whether the grid's lens guides it, and the parameters and files of the step."""

    label: str
    guided: bool
    params: dict[str, Any] | None
    files: Mapping[str, Reference]


@dataclasses.dataclass(frozen=True)
class _Taken:
    """What one step measures of answers: the end of its name, its parameters, its models, and the metric if it has more drawn."""

    suffix: str
    params: dict[str, Any]
    inputs: Mapping[str, Step]
    drawn: Use | None = None


def _asked(plan: Plan, task: Use, field: str, outer: Outer) -> _Asked:
    declares, scoring = component(declare.Task, task.name, field).declared, plan.grid.score
    inputs: dict[str, Step] = {}
    if asks_grids_rows(declares):
        assert plan.prepare is not None
        inputs["data"] = plan.prepare
    if isinstance(declares, declare.HeldoutTask):
        inputs |= plan.heldout_labels
    source = task.params.get("source")
    ref = parse_reference(source, f"{field}.source") if source is not None else None
    identity = outer.identify(ref, f"{field}.source") if ref else {}
    shown = task.params.get("shots_source")
    files = {"shots_source": parse_reference(shown, f"{field}.shots_source")} if shown is not None else {}
    contents = {name: outer.identify(file, f"{field}.{name}") for name, file in files.items()}
    if identity is None or None in contents.values():
        return _Asked(None, inputs, ref, files)
    settings = {key: value for key, value in task.params.items() if key not in ("source", "shots_source")}
    described = named(task, declare.Task) | {"params": settings, "source": dict(identity)} | contents
    params: dict[str, Any] = {"task": described, "dtype": scoring.dtype, "batch": scoring.batch}
    if "teacher" in inputs:
        params |= {"soft_labels": labels_of(plan.grid)}
    if isinstance(declares, declare.ChoiceTask):  # lm-eval's task files and code do the scoring
        params |= {"likelihood": scoring.likelihood, "lm_eval": importlib.metadata.version("lm_eval")}
    if _asks_by_template(plan.grid, task):
        params |= {"template": template_of(plan.grid)}
    if isinstance(declares, declare.AnswerTask) and scoring.engine != "transformers":
        params |= {"engine": scoring.engine}
    return _Asked(params, inputs, ref, files)


def _asks_by_template(grid: Grid, task: Use) -> bool:
    """Whether a task's prompts depend on the grid's template, or where they are the model's own chat on what that is given."""
    asked = declared(declare.Task, task.name)
    own_chat = task.params.get("prompt") == "chat" or task.params.get("chat_template", False)
    if own_chat:
        return grid.data.template.name == "chat" and bool(template_of(grid)["params"])
    return isinstance(asked, declare.AnswerTask) and not asked.rows and task.params.get("prompt", "template") == "template"


def _ways(plan: Plan, asked: _Asked, outer: Outer) -> list[_Way]:
    """How answers to a task are decoded."""
    ways = []
    for i, decoding in enumerate(plan.grid.score.decoding):
        files = references(decoding, f"score.decoding.{i}")
        contents = {name: outer.identify(file, f"score.decoding.{i}.{name}") for name, file in files.items()}
        params = asked.params and asked.params | {"decoding": _decoding(decoding, contents)}
        ways.append(_Way(decoding_label(decoding), guided_by_grids_lens(decoding), params, files))
    return ways


def _score(
    task: Use,
    asked: _Asked,
    ways: Sequence[_Way],
    metrics: Sequence[_Taken],
    subject: Subject,
    position: float | None,
    model: Step,
    lens: Step | None,
) -> Iterator[ScoreStep]:
    """The steps of one task on one model: `generate` once per decoding and then `measure`, or `measure` alone.

    Decodings that a lens guides are for models that the `lens` fits.
    """
    inputs = {"model": model, **asked.inputs}
    slug = f"{model.slug}-{slug_of(task.name)}"
    if not isinstance(declared(declare.Task, task.name), declare.AnswerTask):
        measure = make_step("measure", slug, asked.params, inputs, asked.source, files=asked.files)
        yield ScoreStep(subject, position, task, measure, None)
        return
    for way in ways:
        if way.guided and lens is None:
            continue
        needed = inputs | {GUIDE: lens} if way.guided and lens else inputs
        generate = make_step("generate", f"{slug}-{way.label}", way.params, needed, asked.source, files=way.files)
        for measure in _measures(metrics, generate, asked.params):
            yield ScoreStep(subject, position, task, measure, generate, way.label)


def _metrics(metrics: list[Use], outer: Outer) -> list[_Taken]:
    """What is measured of a task's answers together: text metrics, and each metric with a model or an endpoint apart.

    So a metric more never takes those again that are dear.
    """
    slow = [use for use in metrics if declared(declare.Metric, use.name).slow]
    quick = [named(use, declare.Metric) for use in metrics if use not in slow]
    taken = [_Taken("", {"metrics": quick, "answers": ANSWERS_VERSION}, {})] if quick else []
    for use in slow:
        metric, inputs = _metric(use, f"score.metrics.{use.name}", outer)
        drawn = use if declared(declare.Metric, use.name).samples else None
        taken.append(_Taken(f"-{use.name}", {"metrics": [metric], "answers": ANSWERS_VERSION}, inputs, drawn))
    return taken


def _measures(metrics: Sequence[_Taken], generate: Step, asked: dict[str, Any] | None) -> Iterator[Step]:
    """The measurements of one task's answers; `asked` is what these were generated with."""
    for taken in metrics:
        inputs = {"outputs": generate, **taken.inputs}
        if use := taken.drawn:
            seeds = range(use.params["samples"])  # answers drawn at random, generated once and kept like all others
            inputs |= {f"samples.{seed}": _sample(generate, asked, use.params["temperature"], seed) for seed in seeds}
        yield make_step("measure", generate.slug + taken.suffix, taken.params, inputs)


def _metric(use: Use, field: str, outer: Outer) -> tuple[dict[str, Any], dict[str, Step]]:
    """A metric as it enters ids, and its models as inputs of the step that takes it."""
    declares = component(declare.Metric, use.name, field).declared
    models = declares.models
    inputs = {f"{use.name}.{name}": _metric_model(use.params[name], weights, f"{field}.{name}", outer) for name, weights in models.items()}
    apart = {*models, *declares.samples, *declares.runtime}
    params = {key: value for key, value in use.params.items() if key not in apart}
    return named(Use.model_construct(name=use.name, params=params), declare.Metric), inputs


def _sample(generate: Step, asked: dict[str, Any] | None, temperature: float, seed: int) -> Step:
    """The answers to the same prompts, drawn with a seed."""
    drawn = Use.model_construct(name="sampled", params={"temperature": temperature, "top_p": None, "seed": seed})
    params = asked and asked | {"decoding": _decoding(drawn, {})}
    inputs = {name: needed for name, needed in generate.inputs.items() if name != GUIDE}
    return make_step("generate", f"{generate.slug}-sample{seed}", params, inputs, generate.source)


def _metric_model(text: str, weights: bool, field: str, outer: Outer) -> Step:
    """The model that a metric scores with, or where it is built from another's weights its configuration and tokenizer alone."""
    ref = parse_reference(text, field)
    identity = outer.identify(ref, field)
    slug = slug_of(PurePosixPath(ref.path or ref.name).name.removesuffix(".gguf"))
    params = identity and {"source": identity, "gguf": ref.is_gguf} | ({} if weights else {"weights": False})
    return make_step("model", slug, params, {}, ref)


def _lens(plan: Plan, section: LensSection, model: Step, outer: Outer) -> Step:
    """The lens that the grid asks for, trained or tested on what `model` sees."""
    params: dict[str, Any] = {"dtype": plan.grid.score.dtype}
    inputs, files, source, identity = {"model": model}, {}, None, {}
    if section.trained:
        files = {"trained": parse_reference(section.trained, "lens.trained")}
        params |= {"trained": outer.identify(files["trained"], "lens.trained")}
    else:
        params |= {"window": section.window, "fit": FIT_VERSION}
    if section.own:
        inputs |= {"annotated": _annotated(plan, section.own, outer)}
    if section.annotations and section.source:
        source = parse_reference(section.source, "lens.source")
        identity = outer.identify(source, "lens.source")
        params |= {"source": identity, "max_words": section.max_words, "limit": section.limit}
        params |= {"evenly": True} if section.limit else {}  # once it was the first so many of the file
        params |= {"annotations": named(Use(name=section.annotations), declare.Annotations)}
        params |= {"template": template_of(plan.grid)}
    slug = f"{model.slug}-{'trained' if section.trained else section.annotations or 'own'}"
    return make_step("lens", slug, None if identity is None else params, inputs, source, files=files)


def _annotated(plan: Plan, own: OwnAnswers, outer: Outer) -> Step:
    """The untrained student's answers with the hallucinations that a metric finds in them."""
    student, asked = plan.models["student"], _asked(plan, own.task, "lens.own.task", outer)
    params = asked.params and asked.params | {"decoding": "greedy"}
    slug = f"{student.slug}-{slug_of(own.task.name)}-greedy"
    outputs = make_step("generate", slug, params, {"model": student, **asked.inputs}, asked.source)
    metric, models = _metric(own.metric, "lens.own.metric", outer)
    settings = {"metric": metric, "threshold": own.threshold}
    return make_step("annotate", f"{slug}-{own.metric.name}", settings, {"outputs": outputs, **models})


def _factual_rate(score: ScoreStep, model: Step, lens: Step) -> ScoreStep:
    """The factual rate of answers that are kept: a score of its own, so that a new lens makes nothing else again."""
    assert score.generate is not None
    inputs = {"outputs": score.generate, "model": model, "lens": lens}
    params = {"dtype": lens.params["dtype"], "rate": RATE_VERSION} if lens.payload else None
    return dataclasses.replace(score, measure=make_step("measure", f"{score.generate.slug}-fr", params, inputs))


def _decoding(use: Use, contents: Mapping[str, Any]) -> str | dict[str, Any]:
    """A decoding as it enters ids, files by their content; one that has nothing to set, such as greedy, by its name alone."""
    described = named(use, declare.Decoding)
    described["params"] = described["params"] | contents
    return described if described["params"] or described["version"] > 1 else use.name
