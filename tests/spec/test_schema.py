"""The JSON schema of grid files: it accepts every grid that is shipped, and refuses what `kdray check` refuses.

docs/grid.schema.json and the table in docs/grid.md are what the command prints. Where fields, components or parameters
have changed, renew both:

    python -m tests.spec.test_schema
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from kdray.spec import InputError, declare, load_grid
from kdray.spec.components import components
from kdray.spec.declare import KINDS
from kdray.spec.grid import Grid
from kdray.spec.load import parse_grid
from kdray.spec.schema import grid_schema
from kdray.spec.sections.base import Section
from kdray.spec.table import with_table
from tests.conftest import ABSENT, ROOT, Run, TinyGrid

FILE, PAGE = ROOT / "docs" / "grid.schema.json", ROOT / "docs" / "grid.md"
GRIDS = sorted((ROOT / "grids").glob("*.yaml"))
FIRST = "# yaml-language-server: $schema=../docs/grid.schema.json\n"
RENEW = "renew it: python -m tests.spec.test_schema"
Validator = jsonschema.Draft202012Validator
POINT = {"lr": 1e-3, "batch": 2, "alpha": 1}


@pytest.fixture(scope="module")
def validator() -> Validator:
    return Validator(grid_schema())


# what is written down


def test_the_committed_schema_is_the_commands(run: Run) -> None:
    code, stdout, stderr = run("schema")
    assert (code, stderr) == (0, "")
    assert FILE.read_text() == stdout, RENEW


def test_the_table_in_the_page_is_the_commands(run: Run) -> None:
    code, stdout, _ = run("schema", "--markdown")
    assert code == 0
    assert f"\n{stdout}<!-- end of fields -->\n" in PAGE.read_text(), RENEW
    assert with_table(PAGE.read_text()) == PAGE.read_text()


def test_links_in_the_table_lead_somewhere(run: Run) -> None:
    page = PAGE.read_text()
    targets = re.findall(r"\]\(([^)]+)\)", run("schema", "--markdown")[1])
    assert {"summaries.md", "#lens"} <= set(targets)
    headings = {
        re.sub(r"[^a-z -]", "", line.lower()).strip().replace(" ", "-")
        for line in page.splitlines()
        if line.startswith("##")
    }
    for target in targets:
        assert target[1:] in headings if target.startswith("#") else (PAGE.parent / target).is_file(), target


def below(section: type[Section]) -> list[type[Section]]:
    """All sections, however many steps they inherit."""
    return [inner for each in section.__subclasses__() for inner in (each, *below(each))]


def test_every_field_says_what_it_means() -> None:
    named = {section.__name__: section for section in below(Section)}
    wanted = {"Grid", *grid_schema()["$defs"]}.intersection(named)
    assert {"Grid", "Train", "Tune", "OwnAnswers", "PointSpec"} <= wanted
    for name in wanted:
        for field, info in named[name].model_fields.items():
            assert info.description, f"{name}.{field} has no description"
            assert not info.description.endswith("."), f"{name}.{field}"


def test_a_default_is_written_as_in_a_grid_file() -> None:
    lines = dict(line.split(" | ", 1) for line in with_table("").splitlines() if " | " in line)
    for field in (
        "`train.clip` (1)",
        "`data.recipe` (dolly)",
        "`train.packing` (true)",
        "`score.references` (student, teacher)",
    ):
        assert f"| {field}" in lines, field
    for field in ("`teacher.tune`", "`runtime.store`", "`train.keep`", "`lens`", "`soft_labels`", "`report.margin`"):
        assert f"| {field}" in lines, field
    assert "| `teacher.tune.dtype` (float32)" not in lines  # listed once, under train


# what it accepts


@pytest.mark.parametrize("path", GRIDS, ids=[path.stem for path in GRIDS])
def test_a_shipped_grid_names_the_schema_and_is_valid_by_it(path: Path, validator: Validator) -> None:
    text = path.read_text()
    assert text.startswith(FIRST)
    assert (path.parent / FIRST.partition("=")[2].strip()).resolve() == FILE
    assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []


@pytest.mark.slow
def test_the_schema_itself_is_one() -> None:
    Validator.check_schema(grid_schema())
    assert "#/$defs/Use" not in json.dumps(grid_schema())


GOOD: dict[str, dict[str, Any]] = {
    "the tiny grid": {},
    "a form's parameter beside it": {
        "soft_labels": {"form": "topk", "k": 8, "batch": 2},
        "objective.loss": "forward_kl",
    },
    "a form's parameter without its name": {"soft_labels": {"dtype": "float32"}},
    "a form as a mapping": {"soft_labels": {"form": {"name": "logits", "dtype": "float32"}}},
    "a loss with its parameter": {"objective.loss": {"name": "jsd", "beta": 0.9}},
    "an engine with its parameters": {"runtime.engine": {"name": "deepspeed", "stage": 3, "offload": True}},
    "a task of lm-eval's": {"score.tasks": ["lm_eval:mmlu", {"name": "lm_eval:sciq", "limit": 3, "shots": None}]},
    "metrics and decodings": {"score.metrics": ["chrf"], "score.decoding": ["greedy", {"name": "sampled", "seed": 3}]},
    "null where it is the default": {"train.clip": None, "lens": None, "data.limit": None},
    "a recipe that needs parameters": {"data.recipe": {"name": "columns", "response": "response"}},
    "points by hand": {"include": [{**POINT, "lr": 5}], "exclude": [{**POINT, "alpha": 0}]},
    "points that go first": {"runtime.priority": [{"alpha": 0}, {"lr": 1e-3, "labels": "gold"}]},
    "an integer for a number": {"axes.lr": [1], "train.warmup": 0},
    "a lens": {"lens": {"own": {"task": "train_answers", "metric": "support_standin"}, "window": 4}},
    "a published lens": {"lens": {"trained": "published"}},
}


@pytest.mark.parametrize("changes", GOOD.values(), ids=list(GOOD))
def test_what_the_check_accepts_is_valid(changes: dict[str, Any], tiny_grid: TinyGrid, validator: Validator) -> None:
    text = tiny_grid.text(changes)
    parse_grid(text)
    assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []


# what it refuses


BAD: dict[str, dict[str, Any]] = {
    "a misspelt section": {"axess": {}},
    "a misspelt field": {"train.shedule": "cosine"},
    "a misspelt field deep down": {"teacher.tune.methd": "lora"},
    "a misspelt field in a list": {"include": [{**POINT, "sead": 1}]},
    "a misspelt field of a priority": {"runtime.priority": [{"sead": 1}]},
    "a missing section": {"student": ABSENT},
    "a missing field": {"axes.lr": ABSENT},
    "a word for a number": {"axes.batch": ["two"]},
    "a bool for a number": {"axes.alpha": [True]},
    "a number for a list": {"axes.lr": 1e-3},
    "a negative alpha": {"axes.alpha": [-1]},
    "an unknown dtype": {"train.dtype": "fp8"},
    "a name with spaces": {"name": "My grid"},
    "a reference without a scheme": {"student.model": "HuggingFaceTB/SmolLM2-360M-Instruct"},
    "an unknown recipe": {"data.recipe": "dollly"},
    "an unknown template": {"data.template": "chatml"},
    "an unknown schedule": {"train.schedule": "linear"},
    "an unknown loss": {"objective.loss": "kl"},
    "an unknown form": {"soft_labels": {"form": "top_k"}},
    "another form's parameter": {"soft_labels": {"form": "topk", "draws": 8}},
    "an unknown task": {"score.tasks": ["xsun"]},
    "a task of lm-eval's without a name": {"score.tasks": ["lm_eval"]},
    "an unknown metric": {"score.metrics": ["bleu"]},
    "an unknown decoding": {"score.decoding": ["beam"]},
    "an unknown engine": {"runtime.engine": "horovod"},
    "an unknown format of annotations": {"lens": {"annotations": "csv", "source": "file:rows.jsonl"}},
    "an unknown parameter of a task": {"score.tasks": [{"name": "xsum", "limt": 3}]},
    "an unknown parameter of a loss": {"objective.loss": {"name": "jsd", "alpha": 0.5}},
    "a parameter that is missing": {"data.recipe": "columns"},
    "a parameter of the wrong type": {"score.tasks": [{"name": "xsum", "limit": "all"}]},
    "a parameter out of its range": {"objective.loss": {"name": "jsd", "beta": 1}},
    "a parameter that is none of its words": {"runtime.engine": {"name": "deepspeed", "stage": 4}},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=list(BAD))
def test_what_is_wrong_is_refused_by_the_schema_and_by_the_check(
    changes: dict[str, Any], tiny_grid: TinyGrid, validator: Validator
) -> None:
    text = tiny_grid.text(changes)
    assert not validator.is_valid(yaml.safe_load(text))
    with pytest.raises(InputError):
        parse_grid(text)


# what it is made of


def test_every_component_and_parameter_is_in_it() -> None:
    made = grid_schema()["$defs"]
    for kind in set(KINDS) - {declare.Annotations, declare.Stage}:
        mappings = [
            variant for variant in made[kind.word.replace(" ", "_")]["anyOf"] if variant.get("type") == "object"
        ]
        assert len(mappings) == len(components(kind))
        for each, variant in zip(components(kind).values(), mappings, strict=True):
            assert set(variant["properties"]) == {"name", *each.parameters}
            assert variant["description"] == each.summary
    [jsd] = [each for each in made["loss"]["anyOf"] if each.get("properties", {}).get("name") == {"const": "jsd"}]
    assert jsd["properties"]["beta"] == {"exclusiveMaximum": 1, "exclusiveMinimum": 0, "type": "number", "default": 0.5}


def test_the_schemas_top_level_is_the_grids() -> None:
    assert set(grid_schema()["properties"]) == set(Grid.model_fields)
    assert load_grid(GRIDS[0]).name


def renew() -> None:
    """Write the schema, and the table into its page."""
    FILE.write_text(json.dumps(grid_schema(), indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(with_table(PAGE.read_text()))


if __name__ == "__main__":
    renew()
