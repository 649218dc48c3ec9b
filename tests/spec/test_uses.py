"""Which components a grid uses: every field that names one, wherever it stands."""

from __future__ import annotations

from kdray.spec import load_grid
from kdray.spec.grid import Grid
from kdray.spec.sections.base import Use
from kdray.spec.sections.running import Runtime
from kdray.spec.sections.scoring import Scoring
from kdray.spec.uses import entries_by_field, uses
from tests.conftest import ABSENT, Install, TinyGrid


def xsum() -> dict[str, str]:
    return {"name": "xsum", "source": "file:HERE/xsum.jsonl"}


def used(grid: Grid) -> set[tuple[str, str]]:
    return {(field, f"{found.kind.word} {found.name}") for field, found in uses(grid)}


def test_every_field_that_names_a_component(tiny_grid: TinyGrid) -> None:
    path = tiny_grid(
        {
            "teacher": ABSENT,
            "teachers": {
                "one": {"model": "file:HERE/teacher", "tune": {"lr": 1e-3, "steps": 1, "schedule": "constant"}},
                "two": {"model": "file:HERE/student"},
            },
            "score": {"tasks": ["heldout_loss", xsum()], "metrics": ["chrf"], "decoding": ["greedy", "sampled"]},
            "lens": {"own": {"task": xsum(), "metric": "support_standin"}},
            "runtime.engine": "fsdp",
        }
    )
    assert used(load_grid(path)) == {
        ("data.recipe", "recipe dolly"),
        ("data.template", "template alpaca"),
        ("soft_labels.form", "soft labels hidden"),
        ("objective.loss", "loss cross_entropy"),
        ("train.schedule", "schedule cosine"),
        ("teachers.one.tune.schedule", "schedule constant"),
        ("score.tasks.0", "task heldout_loss"),
        ("score.tasks.1", "task xsum"),
        ("score.tasks.1", "metric rouge"),  # the task's own
        ("score.metrics.0", "metric chrf"),
        ("score.choices.0", "decoding greedy"),
        ("score.decoding.0", "decoding greedy"),
        ("score.decoding.1", "decoding sampled"),
        ("lens.own.task", "task xsum"),
        ("lens.own.task", "metric rouge"),
        ("lens.own.metric", "metric support_standin"),
        ("runtime.engine", "engine fsdp"),
    }


def test_annotations_are_named_by_a_text(tiny_grid: TinyGrid) -> None:
    grid = load_grid(tiny_grid({"lens": {"annotations": "jsonl", "source": "file:HERE/rows.jsonl"}}))
    assert ("lens.annotations", "annotations jsonl") in used(grid)


def test_of_models_that_are_only_scored(install: Install) -> None:
    source = 'DECLARED = declare.Metric(version=1, scores=("x",))\ndef mine(answers): ...\n'
    install.module("mine.py", source)
    install({"kdray.metrics": {"mine": "mine"}})
    score = Scoring(tasks=[Use(name="lm_eval:mmlu")], metrics=[Use(name="mine")])
    grid = Grid.only_scoring("x", score, Use(name="chat"), None, Runtime(store="store"))
    assert {name for _, name in used(grid)} >= {
        "task lm_eval",
        "metric mine",
        "decoding greedy",
        "template chat",
        "engine ddp",
    }
    assert {field: entry.name for field, entry in entries_by_field(grid).items()} == {"score.metrics.0": "mine"}
