"""The steps that score: every task on every checkpoint and reference model."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from kdray.plan.identity import ONLINE, named, payload
from kdray.plan.inputs import (
    AnnotateInputs,
    AnswersInputs,
    GenerateInputs,
    Inputs,
    LensInputs,
    LikelihoodInputs,
    MetricModels,
    PrepareInputs,
    RateInputs,
    RetokeniseInputs,
    Softened,
)
from kdray.plan.steps import Plan, ScoreStep, Step, Subject, make_step, slug_of
from kdray.spec import declare
from kdray.spec.components import asks_grids_rows, bind_use, component, declared
from kdray.spec.decodings import PLAIN, aligned_by, decoding_label, guided_by_grids_lens, references
from kdray.spec.grid import Grid
from kdray.spec.lens import FIT_VERSION, RATE_VERSION, rated_by_lens
from kdray.spec.metrics import ANSWERS_VERSION, metrics_of
from kdray.spec.points import Point
from kdray.spec.refs import Reference, parse_reference
from kdray.spec.sections.base import Use
from kdray.spec.sections.scoring import LensSection, OwnAnswers
from kdray.spec.sections.training import AlignSection
from kdray.store import Outer


def score_steps(plan: Plan, outer: Outer) -> Iterator[ScoreStep]:
    """Those of `plan`, task by task.

    Raises:
        InputError: a local file that a task, metric or decoding names does not exist.
    """
    grid = plan.grid
    wanted = [
        role
        for role in plan.models
        if not plan.points or ("student" if role == "student" else "teacher") in grid.score.references
    ]
    subjects: list[tuple[Subject, float | None, Step]] = [(role, None, plan.models[role]) for role in wanted]
    for point in plan.points:
        exports = list(point.exports.items())
        subjects += [
            (point.point, at, step) for at, step in (exports[-1:] if grid.score.checkpoints == "last" else exports)
        ]
    # A lens fits one shape of model: in a grid the students'; where models are only scored, each of them.
    rated = ["student"] if plan.points else wanted
    lenses = {role: _lens(plan, grid.lens, plan.models[role], outer) for role in rated} if grid.lens else {}
    for index, task in enumerate(grid.score.tasks):
        asked = {
            trained: _asked(plan, _shown(task, trained), f"score.tasks.{index}", outer) for trained in (True, False)
        }
        answered = isinstance(declares := declared(declare.Task, task.name), declare.AnswerTask)
        ways = {
            trained: _ways(plan, one, outer) if answered else _scored(plan, declares, one)
            for trained, one in asked.items()
        }
        metrics = _metrics(metrics_of(task, grid.score.metrics), outer) if answered else []
        for subject, position, model in subjects:
            read = plan.read.get(subject) if isinstance(subject, str) else None
            if read and isinstance(declares, declare.HeldoutTask):
                continue  # nats a token of other tokens than the points'
            lens = lenses.get("student" if isinstance(subject, Point) else subject)
            trained = isinstance(subject, Point) or model.untuned is not model
            own = dataclasses.replace(asked[trained], data=read) if read and asked[trained].data else asked[trained]
            scores = list(_score(task, own, ways[trained], metrics, subject, position, model, lens))
            yield from scores
            if lens and rated_by_lens(task):
                # several measurements may share their answers, whose rate is one
                yield from (
                    _factual_rate(score, model, lens)
                    for score in {id(score.generate): score for score in scores}.values()
                )


def cited_answers(plan: Plan, model: Step, section: AlignSection, outer: Outer) -> Step[GenerateInputs]:
    """A model's answers to training rows, with citations, from which it is to learn."""
    given = {"limit": section.answers, "max_new_tokens": section.max_new_tokens}
    task = bind_use(Use.model_construct(name="train_answers", params=given), declare.Task, "align")
    use, asked = aligned_by(section), _asked(plan, task, "align", outer)
    params = asked.params and asked.params | {"decoding": _decoding(use, {})}
    slug = f"{model.slug}-{slug_of(task.name)}-{decoding_label(use)}"
    return make_step("generate", slug, params, GenerateInputs(model=model, data=asked.data))


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What a task asks of any model: the parameters of its steps, what they read beside the model, and where its data
    are.
    """

    params: dict[str, Any] | None
    data: Step[PrepareInputs | RetokeniseInputs] | None
    taught: Softened
    source: Reference | None
    files: Mapping[str, Reference]


@dataclasses.dataclass(frozen=True)
class _Way:
    """How a task's answers are decoded or its choices scored, in a step with these parameters and files.

    `label` is the decoding's, none for plain likelihood; `guided`: the grid's lens guides it.
    """

    label: str
    guided: bool
    params: dict[str, Any] | None
    files: Mapping[str, Reference]


@dataclasses.dataclass(frozen=True)
class _Taken:
    """What one step measures of answers: the end of its name, its parameters, its models, the metric if it has more
    drawn, and whether it asks the model that answered.
    """

    suffix: str
    params: dict[str, Any]
    models: MetricModels | None = None
    drawn: Use | None = None
    answerer: bool = False


def _shown(task: Use, trained: bool) -> Use:
    """`task` as models are asked it that were trained here, or were not: with the solved examples that these are
    shown.
    """
    params = dict(task.params)
    untrained = params.pop("untrained_shots", None)
    if untrained is not None and not trained:
        params["shots"] = untrained
    if params.get("shots") == 0:
        params["shots_source"] = None  # which the other models are shown
    return Use.model_construct(name=task.name, params=params)


def _asked(plan: Plan, task: Use, field: str, outer: Outer) -> _Asked:
    declares, scoring = component(declare.Task, task.name, field).declared, plan.grid.score
    data = plan.prepare if asks_grids_rows(declares) else None
    taught = plan.heldout_labels if isinstance(declares, declare.HeldoutTask) else Softened()
    source = task.params.get("source")
    ref = parse_reference(source, f"{field}.source") if source is not None else None
    identity = outer.identify(ref, f"{field}.source") if ref else {}
    shown = task.params.get("shots_source")
    files = {"shots_source": parse_reference(shown, f"{field}.shots_source")} if shown is not None else {}
    contents = {name: outer.identify(file, f"{field}.{name}") for name, file in files.items()}
    if identity is None or None in contents.values():
        return _Asked(None, data, taught, ref, files)
    settings = {key: value for key, value in task.params.items() if key not in ("source", "shots_source")}
    described = named(declare.Task, task.name, settings) | {"source": dict(identity)} | contents
    params: dict[str, Any] = {"task": described} | payload(scoring, "dtype", "batch")
    if taught.teacher:
        params |= {"soft_labels": payload(plan.grid.soft_labels, *ONLINE)}
    if isinstance(declares, declare.ChoiceTask):  # lm-eval's task files and code do the scoring
        params |= payload(scoring, "likelihood") | {"lm_eval": importlib.metadata.version("lm_eval")}
    if _asks_by_template(plan.grid, task):
        params |= payload(plan.grid.data, "template")
    if isinstance(declares, declare.AnswerTask):
        params |= payload(scoring, "engine")
    return _Asked(params, data, taught, ref, files)


def _asks_by_template(grid: Grid, task: Use) -> bool:
    """Whether a task's prompts depend on the grid's template, or where they are the model's own chat on what that is
    given.
    """
    asked = declared(declare.Task, task.name)
    own_chat = task.params.get("prompt") == "chat" or task.params.get("chat_template", False)
    if own_chat:
        return grid.data.template.name == "chat" and bool(payload(grid.data, "template")["template"]["params"])
    return (
        isinstance(asked, declare.AnswerTask) and not asked.rows and task.params.get("prompt", "template") == "template"
    )


def _ways(plan: Plan, asked: _Asked, outer: Outer) -> list[_Way]:
    """How answers to a task are decoded."""
    ways = []
    for i, decoding in enumerate(plan.grid.score.decoding):
        files = references(decoding, f"score.decoding.{i}")
        contents = {name: outer.identify(file, f"score.decoding.{i}.{name}") for name, file in files.items()}
        params = asked.params and asked.params | {"decoding": _decoding(decoding, contents)}
        ways.append(_Way(decoding_label(decoding), guided_by_grids_lens(decoding), params, files))
    return ways


def _scored(plan: Plan, declares: declare.Task, asked: _Asked) -> list[_Way]:
    """How a task that is not answered is scored: by likelihood and, where it has choices, under what contrasts
    layers.
    """
    ways = []
    for use in plan.grid.score.choices if isinstance(declares, declare.ChoiceTask) else [Use(name=PLAIN)]:
        label, params = decoding_label(use), asked.params
        if label != PLAIN and isinstance(declares, declare.ChoiceTask):
            params = params and params | {"decoding": _decoding(use, {}), "softmax": not declares.ratios}
        ways.append(_Way("" if label == PLAIN else label, guided=False, params=params, files=asked.files))
    return ways


def _score(
    task: Use,
    asked: _Asked,
    ways: Sequence[_Way],
    metrics: Sequence[_Taken],
    subject: Subject,
    position: float | None,
    model: Step,
    lens: Step[LensInputs] | None,
) -> Iterator[ScoreStep]:
    """The steps of one task on one model: `generate` once per decoding and then `measure`, or `measure` alone, once per
    way.

    Decodings that a lens guides are for models that the `lens` fits.
    """
    slug = f"{model.slug}-{slug_of(task.name)}"
    if not isinstance(declared(declare.Task, task.name), declare.AnswerTask):
        taught = asked.taught
        inputs = LikelihoodInputs(model=model, data=asked.data, soft_labels=taught.soft_labels, teacher=taught.teacher)
        for way in ways:
            named_after = f"{slug}-{way.label}" if way.label else slug
            measure = make_step("measure", named_after, way.params, inputs, asked.source, files=way.files)
            yield ScoreStep(subject, position, task, measure, None, way.label)
        return
    for way in ways:
        if way.guided and lens is None:
            continue
        inputs = GenerateInputs(model=model, data=asked.data, guide=lens if way.guided else None)
        generate = make_step("generate", f"{slug}-{way.label}", way.params, inputs, asked.source, files=way.files)
        for measure in _measures(metrics, generate, asked.params):
            yield ScoreStep(subject, position, task, measure, generate, way.label)


def _metrics(metrics: list[Use], outer: Outer) -> list[_Taken]:
    """What is measured of a task's answers together: text metrics, and each metric with a model or an endpoint apart.

    So a metric more never takes those again that are dear.
    """
    slow = [use for use in metrics if declared(declare.Metric, use.name).slow]
    quick = [named(declare.Metric, use.name, use.params) for use in metrics if use not in slow]
    taken = [_Taken("", {"metrics": quick, "answers": ANSWERS_VERSION})] if quick else []
    for use in slow:
        metric, models = _metric(use, f"score.metrics.{use.name}", outer)
        declares, params = declared(declare.Metric, use.name), {"metrics": [metric], "answers": ANSWERS_VERSION}
        drawn = use if declares.samples else None
        taken.append(_Taken(f"-{use.name}", params, models, drawn, declares.answerer))
    return taken


def _measures(
    metrics: Sequence[_Taken], generate: Step[GenerateInputs], asked: dict[str, Any] | None
) -> Iterator[Step[AnswersInputs]]:
    """The measurements of one task's answers; `asked` is what these were generated with."""
    for taken in metrics:
        samples: tuple[Step[GenerateInputs], ...] = ()
        if use := taken.drawn:  # answers drawn at random, generated once and kept like all others
            samples = tuple(
                _sample(generate, asked, use.params["temperature"], seed) for seed in range(use.params["samples"])
            )
        inputs = AnswersInputs(outputs=generate, models=taken.models, samples=samples)
        params: dict[str, Any] | None = taken.params
        if taken.answerer:
            inputs = dataclasses.replace(inputs, model=generate.inputs.model)
            params = asked and params | {"dtype": asked["dtype"]}
        yield make_step("measure", generate.slug + taken.suffix, params, inputs)


def _metric(use: Use, field: str, outer: Outer) -> tuple[dict[str, Any], MetricModels]:
    """A metric as it enters ids, and its models."""
    declares = component(declare.Metric, use.name, field).declared
    models = {
        name: _metric_model(use.params[name], weights, f"{field}.{name}", outer)
        for name, weights in declares.models.items()
    }
    apart = {*models, *declares.samples, *declares.runtime}
    params = {key: value for key, value in use.params.items() if key not in apart}
    return named(declare.Metric, use.name, params), MetricModels(use.name, models)


def _sample(
    generate: Step[GenerateInputs], asked: dict[str, Any] | None, temperature: float, seed: int
) -> Step[GenerateInputs]:
    """The answers to the same prompts, drawn with a seed."""
    drawn = Use.model_construct(name="sampled", params={"temperature": temperature, "top_p": None, "seed": seed})
    params = asked and asked | {"decoding": _decoding(drawn, {})}
    inputs = dataclasses.replace(generate.inputs, guide=None)
    return make_step("generate", f"{generate.slug}-sample{seed}", params, inputs, generate.source)


def _metric_model(text: str, weights: bool, field: str, outer: Outer) -> Step:
    """The model that a metric scores with, or where it is built from another's weights its configuration and tokenizer
    alone.
    """
    ref = parse_reference(text, field)
    identity = outer.identify(ref, field)
    slug = slug_of(PurePosixPath(ref.path or ref.name).name.removesuffix(".gguf"))
    params = identity and {"source": identity, "gguf": ref.is_gguf} | ({} if weights else {"weights": False})
    return make_step("model", slug, params, Inputs(), ref)


def _lens(plan: Plan, section: LensSection, model: Step, outer: Outer) -> Step[LensInputs]:
    """The lens that the grid asks for, trained or tested on what `model` sees."""
    params: dict[str, Any] = payload(plan.grid.score, "dtype")
    files, source, identity = {}, None, {}
    if section.trained:
        files = {"trained": parse_reference(section.trained, "lens.trained")}
        params |= payload(section, "trained", trained=outer.identify(files["trained"], "lens.trained"))
    else:
        params |= payload(section, "window") | {"fit": FIT_VERSION}
    if section.annotations and section.source:
        source = parse_reference(section.source, "lens.source")
        identity = outer.identify(source, "lens.source")
        params |= payload(section, "annotations", "source", "max_words", "limit", source=identity)
        params |= {"evenly": True} if section.limit else {}  # once it was the first so many of the file
        params |= payload(plan.grid.data, "template")
    inputs = LensInputs(model=model, annotated=_annotated(plan, section.own, outer) if section.own else None)
    slug = f"{model.slug}-{'trained' if section.trained else section.annotations or 'own'}"
    return make_step("lens", slug, None if identity is None else params, inputs, source, files=files)


def _annotated(plan: Plan, own: OwnAnswers, outer: Outer) -> Step[AnnotateInputs]:
    """The untrained student's answers with the hallucinations that a metric finds in them."""
    student, asked = plan.models["student"], _asked(plan, own.task, "lens.own.task", outer)
    params = asked.params and asked.params | {"decoding": "greedy"}
    slug = f"{student.slug}-{slug_of(own.task.name)}-greedy"
    outputs = make_step("generate", slug, params, GenerateInputs(model=student, data=asked.data), asked.source)
    metric, models = _metric(own.metric, "lens.own.metric", outer)
    return make_step(
        "annotate",
        f"{slug}-{own.metric.name}",
        payload(own, metric=metric),
        AnnotateInputs(outputs=outputs, models=models),
    )


def _factual_rate(score: ScoreStep, model: Step, lens: Step[LensInputs]) -> ScoreStep:
    """The factual rate of answers that are kept: a score of its own, so that a new lens makes nothing else again."""
    assert score.generate is not None
    inputs = RateInputs(outputs=score.generate, model=model, lens=lens)
    params = {"dtype": lens.params["dtype"], "rate": RATE_VERSION} if lens.payload else None
    return dataclasses.replace(score, measure=make_step("measure", f"{score.generate.slug}-fr", params, inputs))


def _decoding(use: Use, contents: Mapping[str, Any]) -> str | dict[str, Any]:
    """A decoding as it enters ids, files by their content; one that has nothing to set, such as greedy, by its name
    alone.
    """
    described = named(declare.Decoding, use.name, {**use.params, **contents})
    return use.name if described == {"name": use.name, "version": 1, "params": {}} else described
