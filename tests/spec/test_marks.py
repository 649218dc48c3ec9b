"""Which fields of a grid file enter ids: all of them, said once more, so that none changes sides unnoticed."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from kdray.spec.marks import Enters, Mark, Runs, Selects, Shown, marks
from kdray.spec.sections.base import Section, Use

OPTIMISER = "clip compile dropout dtype epochs method packing rank scale schedule steps warmup weight_decay"
EXPECTED: dict[type[Mark], dict[str, str]] = {
    Enters: {
        "AlignSection": "batch beta gamma lr steps",
        "Augment": "batch compute engine max_new_tokens quantise",
        "CurateSection": "languages least metadata of pairs seed tail threshold",
        "Data": "heldout limit max_length max_prompt recipe source split template test",
        "ExportSection": "adapters dtype",
        "LensSection": "annotations limit max_words source trained window",
        "Length": "epochs steps",
        "Model": "drop_layers model",
        "ObjectiveSection": "loss temperature weighting",
        "Optimiser": OPTIMISER,
        "OwnAnswers": "metric threshold",
        "SamplingSection": "max_new_tokens temperature top_k",
        "Scoring": "batch dtype engine likelihood",
        "SoftLabelsSection": "batch compute form quantise",
        "TeacherSection": "drop_layers model",
        "Train": f"{OPTIMISER} keep",
        "Tune": f"{OPTIMISER} batch lr seed",
    },
    Selects: {
        "AlignSection": "answers candidates max_new_tokens",
        "Axes": "aligned alpha batch labels lr on_policy rows seed smoothing teacher temperature",
        "Grid": "ensembles family",
        "ObjectiveSection": "on_policy",
        "OwnAnswers": "task",
        "PointSpec": "aligned alpha batch labels lr on_policy rows seed smoothing teacher temperature",
        "Scoring": "checkpoints choices decoding metrics references tasks",
        "SoftLabelsSection": "align",
    },
    Shown: {"Grid": "name question", "Report": "cases checkpoint margin primary"},
    Runs: {
        "SomePoints": "aligned alpha batch labels lr on_policy rows seed smoothing teacher temperature",
        "Runtime": "accelerator beside checkpoint_every checkpoint_minutes device drop_exports engine"
        " gradient_checkpointing micro_batch mlflow notify points_per_gpu store workers",
        "SearchSection": "grace name reduction",
    },
}


def sections(base: type[Section] = Section) -> list[type[Section]]:
    """Every section of kdray, whichever module of `kdray.spec.sections` it lies in."""
    found = [each for child in base.__subclasses__() for each in [child, *sections(child)]]
    return [each for each in found if each is not Use and each.__module__.startswith("kdray.")]


@pytest.mark.parametrize("kind", EXPECTED)
def test_every_field_is_on_its_side(kind: type[Mark]) -> None:
    found = {
        section.__name__: " ".join(sorted(name for name, mark in marks(section).items() if type(mark) is kind))
        for section in sections()
    }
    expected = {section: " ".join(sorted(names.split())) for section, names in EXPECTED[kind].items()}
    assert {section: names for section, names in found.items() if names} == expected


@pytest.mark.parametrize("section", sections())
def test_a_field_has_one_mark_unless_it_is_a_section(section: type[BaseModel]) -> None:
    for name, field in section.model_fields.items():
        count = sum(isinstance(each, Mark) for each in field.metadata)
        assert count == (0 if _holds_sections(field.annotation) else 1), name


@pytest.mark.parametrize("section", sections())
def test_a_field_that_names_components_says_of_which_kind(section: type[BaseModel]) -> None:
    for name, mark in marks(section).items():
        if "Use" in str(section.model_fields[name].annotation):
            assert mark.component, name


def _holds_sections(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation is not Use
    return any(map(_holds_sections, getattr(annotation, "__args__", ())))
