"""The components that a grid names, with every parameter checked and defaults filled in."""

from __future__ import annotations

from kdray.spec import declare
from kdray.spec.components import bind_use, component, components, declared
from kdray.spec.decodings import GUIDE, PLAIN, bind_choices, decoding_label, guided_by_grids_lens, references
from kdray.spec.errors import InputError
from kdray.spec.grid import Grid
from kdray.spec.lens import bind_lens
from kdray.spec.metric_names import base_of
from kdray.spec.metrics import bind_metrics
from kdray.spec.sections.models import TeacherSection
from kdray.spec.sections.scoring import Scoring


def bind_components(grid: Grid) -> Grid:
    """The grid with every component's parameters checked and its defaults filled in.

    Raises:
        InputError: an unknown component, or a wrong parameter of one.
    """
    data = grid.data.model_copy(
        update={
            "recipe": bind_use(grid.data.recipe, declare.Recipe, "data.recipe"),
            "template": bind_use(grid.data.template, declare.Template, "data.template"),
        }
    )
    component(declare.Form, grid.soft_labels.form.name, "soft_labels.form")
    soft_labels = grid.soft_labels.model_copy(
        update={"form": bind_use(grid.soft_labels.form, declare.Form, "soft_labels")}
    )
    objective = grid.objective.model_copy(
        update={"loss": bind_use(grid.objective.loss, declare.Loss, "objective.loss")}
    )
    train = grid.train.model_copy(
        update={"schedule": bind_use(grid.train.schedule, declare.Schedule, "train.schedule")}
    )

    def tuned(teacher: TeacherSection, where: str) -> TeacherSection:
        if not teacher.tune:
            return teacher
        schedule = bind_use(teacher.tune.schedule, declare.Schedule, f"{where}.tune.schedule")
        return teacher.model_copy(update={"tune": teacher.tune.model_copy(update={"schedule": schedule})})

    runtime = grid.runtime.model_copy(
        update={"engine": bind_use(grid.runtime.engine, declare.Engine, "runtime.engine")}
    )
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
    """The section with every task, metric and decoding checked, and their defaults filled in; `has_lens`: the grid
    makes one.

    Raises:
        InputError: an unknown one, one that is named twice, a wrong parameter, or a guide that is not there.
    """
    tasks = [bind_use(use, declare.Task, f"score.tasks.{i}") for i, use in enumerate(score.tasks)]
    for i, task in enumerate(tasks):
        if task.name in [other.name for other in tasks[:i]]:
            several = declared(declare.Task, task.name).several
            allowed = f"name it {task.name.partition(':')[0]}:ANOTHER" if several else "name every task once"
            raise InputError(f"score.tasks.{i}", f"'{task.name}' a second time", allowed)
    for i, task in enumerate(tasks):
        if ":" in task.name and declared(declare.Task, task.name).several:
            others = {base_of(other.name).lower(): other.name for other in tasks if other is not task}
            if other := others.get(base_of(task.name).lower()):
                found = f"'{task.name}', whose scores would be called as those of '{other}'"
                raise InputError(f"score.tasks.{i}", found, "choose another name")
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
            raise InputError(
                f"score.decoding.{i}", f"'{decoding[i].name}' with score.engine vllm", f"vllm decodes {able}"
            )
    choices = [bind_choices(use, f"score.choices.{i}") for i, use in enumerate(score.choices)]
    for i, label in enumerate(labels := [decoding_label(use) for use in choices]):
        if label in labels[:i]:
            raise InputError(f"score.choices.{i}", f"'{label}' a second time", "give every way once")
    if labels != [PLAIN] and not any(
        isinstance(declared(declare.Task, task.name), declare.ChoiceTask) for task in tasks
    ):
        raise InputError("score.choices", "no task has choices", "add a multiple-choice task, or leave it out")
    metrics = bind_metrics(score.metrics, tasks)
    citing = [name for name, other in components(declare.Decoding).items() if other.declared.cites]
    for i, use in enumerate(metrics):
        if declared(declare.Metric, use.name).cited and not {way.name for way in decoding}.intersection(citing):
            allowed = f"add {' or '.join(citing)} to score.decoding"
            raise InputError(f"score.metrics.{i}", f"'{use.name}', but no decoding cites", allowed)
    bound = {"tasks": tasks, "metrics": metrics, "decoding": decoding, "choices": choices}
    return score.model_copy(update=bound)
