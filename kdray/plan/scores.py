"""The steps that score: every task on every checkpoint and reference model."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from kdray.plan.steps import Plan, ScoreStep, Step, Subject, labels_of, make_step, named, slug_of
from kdray.spec.components import component
from kdray.spec.decodings import decoding_label, references
from kdray.spec.grid import Grid, Use
from kdray.spec.metrics import metrics_of, rated_by_lens
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
    lens = _lens(grid, plan.models["student"], outer) if grid.lens else None
    for index, task in enumerate(grid.score.tasks):
        source = task.params.get("source")
        ref = parse_reference(source, f"score.tasks.{index}.source") if source is not None else None
        identity = outer.identify(ref, f"score.tasks.{index}.source") if ref else {}
        for subject, position, model in subjects:
            scores = list(_score(plan, task, ref, identity, subject, position, model, outer))
            yield from scores
            if lens and rated_by_lens(task) and (subject == "student" or isinstance(subject, Point)):  # a lens fits one shape of model
                # several measurements may share their answers, whose rate is one
                yield from (_factual_rate(score, model, lens) for score in {id(score.generate): score for score in scores}.values())


def _score(
    plan: Plan,
    task: Use,
    ref: Reference | None,
    identity: Mapping[str, Any] | None,
    subject: Subject,
    position: float | None,
    model: Step,
    outer: Outer,
) -> Iterator[ScoreStep]:
    """The steps of one task on one model: `generate` once per decoding and then `measure`, or `measure` alone."""
    declared = component("task", task.name, "score.tasks").constants
    scoring = plan.grid.score
    params = None
    if identity is not None:
        settings = {key: value for key, value in task.params.items() if key != "source"}
        described = named(task, "task") | {"params": settings, "source": dict(identity)}
        params = {"task": described, "dtype": scoring.dtype, "batch": scoring.batch}
    inputs = {"model": model}
    if declared["KIND"] == "heldout" or declared.get("HELDOUT"):
        assert plan.prepare is not None
        inputs["data"] = plan.prepare
    if declared["KIND"] == "heldout":
        inputs |= plan.heldout_labels
        if params is not None and "teacher" in plan.heldout_labels:
            params |= {"soft_labels": labels_of(plan.grid)}
    slug = f"{model.slug}-{slug_of(task.name)}"
    if params is not None and declared["KIND"] == "choices":
        # lm-eval's task files and code do the scoring
        params |= {"likelihood": scoring.likelihood, "lm_eval": importlib.metadata.version("lm_eval")}
    if declared["KIND"] != "generate":
        yield ScoreStep(subject, position, task, make_step("measure", slug, params, inputs, ref), None)
        return
    if params is not None and not declared.get("HELDOUT") and task.params.get("prompt", "template") == "template":
        params |= {"template": named(plan.grid.data.template, "template")}
    for i, decoding in enumerate(scoring.decoding):
        label = decoding_label(decoding)
        files = references(decoding, f"score.decoding.{i}")
        contents = {name: outer.identify(file, f"score.decoding.{i}.{name}") for name, file in files.items()}
        asked = params and params | {"decoding": _decoding(decoding, contents)}
        generate = dataclasses.replace(make_step("generate", f"{slug}-{label}", asked, inputs, ref), files=files)
        for measure in _measures(metrics_of(task, scoring.metrics), generate, params, outer):
            yield ScoreStep(subject, position, task, measure, generate, label)


def _measures(metrics: list[Use], generate: Step, asked: dict[str, Any] | None, outer: Outer) -> Iterator[Step]:
    """The measurements of one task's answers: text metrics together, each metric with a model or an endpoint apart.

    So a metric more never takes those again that are dear. `asked` is what the answers were generated with.
    """
    slow = [use for use in metrics if component("metric", use.name, "score.metrics").constants.get("SLOW")]
    quick = [named(use, "metric") for use in metrics if use not in slow]
    if quick:
        yield make_step("measure", generate.slug, {"metrics": quick}, {"outputs": generate})
    for use in slow:
        declared = component("metric", use.name, "score.metrics").constants
        inputs = {"outputs": generate}
        for name, weights in declared.get("MODELS", {}).items():
            inputs[f"{use.name}.{name}"] = _metric_model(use.params[name], weights, f"score.metrics.{use.name}.{name}", outer)
        if declared.get("SAMPLES"):  # answers drawn at random, generated once and kept like all others
            seeds = range(use.params["samples"])
            inputs |= {f"samples.{seed}": _sample(generate, asked, use.params["temperature"], seed) for seed in seeds}
        apart = {*declared.get("MODELS", {}), *declared.get("SAMPLES", ()), *declared.get("RUNTIME", ())}
        params = {key: value for key, value in use.params.items() if key not in apart}
        metric = named(Use.model_construct(name=use.name, params=params), "metric")
        yield make_step("measure", f"{generate.slug}-{use.name}", {"metrics": [metric]}, inputs)


def _sample(generate: Step, asked: dict[str, Any] | None, temperature: float, seed: int) -> Step:
    """The answers to the same prompts, drawn with a seed."""
    drawn = Use.model_construct(name="sampled", params={"temperature": temperature, "top_p": None, "seed": seed})
    params = asked and asked | {"decoding": _decoding(drawn, {})}
    return make_step("generate", f"{generate.slug}-sample{seed}", params, generate.inputs, generate.source)


def _metric_model(text: str, weights: bool, field: str, outer: Outer) -> Step:
    """The model that a metric scores with, or where it is built from another's weights its configuration and tokenizer alone."""
    ref = parse_reference(text, field)
    identity = outer.identify(ref, field)
    slug = slug_of(PurePosixPath(ref.path or ref.name).name.removesuffix(".gguf"))
    params = identity and {"source": identity, "gguf": ref.is_gguf} | ({} if weights else {"weights": False})
    return make_step("model", slug, params, {}, ref)


def _lens(grid: Grid, student: Step, outer: Outer) -> Step:
    """The lens that the grid asks for: one for all its points, which share the student's shape."""
    section = grid.lens
    assert section is not None
    ref = parse_reference(section.source, "lens.source")
    identity = outer.identify(ref, "lens.source")
    fields = section.model_dump(exclude={"annotations", "source"}) | {"dtype": grid.score.dtype}
    fields |= {"annotations": named(Use(name=section.annotations), "annotations"), "template": named(grid.data.template, "template")}
    return make_step("lens", f"{student.slug}-{section.annotations}", identity and {"source": identity, **fields}, {"model": student}, ref)


def _factual_rate(score: ScoreStep, model: Step, lens: Step) -> ScoreStep:
    """The factual rate of answers that are kept: a score of its own, so that a new lens makes nothing else again."""
    assert score.generate is not None
    inputs = {"outputs": score.generate, "model": model, "lens": lens}
    params = {"dtype": lens.params["dtype"]} if lens.payload else None
    return dataclasses.replace(score, measure=make_step("measure", f"{score.generate.slug}-fr", params, inputs))


def _decoding(use: Use, contents: Mapping[str, Any]) -> str | dict[str, Any]:
    """A decoding as it enters ids, files by their content; one that has nothing to set, such as greedy, by its name alone."""
    described = named(use, "decoding")
    described["params"] = described["params"] | contents
    return described if described["params"] or described["version"] > 1 else use.name
