"""What the prepare stage makes of one slice of the source, and whether the models know what it has made, without
Ray.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import datasets
import pyarrow as pa
import pytest

from kdray.plan import Step, make_plan
from kdray.spec import InputError, load_grid
from kdray.stages.prepare import prepare, require_all_known, tokenise_slice
from kdray.store import Outer, Store
from tests.conftest import TinyGrid
from tests.tiny import TEMPLATE, write_rows, write_tokenizer

ROWS = [{"instruction": f"Say {i}.", "context": "", "response": f"{i}."} for i in range(4)]
DROPPING = "{% if 'Say 2' not in messages[0]['content'] %}" + TEMPLATE + "{% endif %}"


def sliced(folder: Path, template: str, recipe: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    tokenizer = write_tokenizer(folder / "tokenizer")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "tokenizer" / "config.json").write_text("{}")
    datasets.Dataset.from_list(rows).save_to_disk(folder / "source")
    [file] = (folder / "source").glob("*.arrow")
    params = {
        "recipe": {"params": {}, **recipe},
        "template": {"name": "chat", "params": {}},
        "max_prompt": 200,
        "max_length": 256,
    }
    return tokenise_slice([str(file)], params, str(folder / "tokenizer"), {"id": list(range(len(rows)))}).to_pylist()[0]


@pytest.mark.parametrize("template", ["", "{{ messages[1:] | join('') }}", DROPPING])
def test_a_prompt_that_renders_to_nothing_is_refused_with_its_row(template: str, tmp_path: Path) -> None:
    made = sliced(tmp_path, template or "{# nothing #}", {"name": "dolly"}, ROWS)
    row = 3 if template == DROPPING else 1
    assert json.loads(made["error"])[:2] == ["data.template", f"the prompt of row {row} has no token"]


def test_a_row_that_is_left_out_anyway_may_have_no_prompt(tmp_path: Path) -> None:
    rows = [row | {"response": "" if i == 2 else "x"} for i, row in enumerate(ROWS)]
    made = sliced(tmp_path, DROPPING, {"name": "dolly"}, rows)
    assert (made["error"], made["empty"]) == ("", 1)
    assert pa.ipc.open_stream(made["rows"]).read_all()["source_row"].to_pylist() == [0, 1, 3]


def test_a_documents_first_token_is_not_learned_though_no_prompt_predicts_it(tmp_path: Path) -> None:
    texts = [{"body": "a"}, {"body": "Ada in Rome . " * 90}]
    made = sliced(tmp_path, "{# nothing #}", {"name": "text", "params": {"column": "body"}}, texts)
    assert made["error"] == ""
    assert set(pa.ipc.open_stream(made["rows"]).read_all()["n_prompt"].to_pylist()) == {1}


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_every_model_of_the_grid_must_know_the_rows_tokens(role: str, tiny_grid: TinyGrid, tmp_path: Path) -> None:
    """The teacher of this grid is tuned: the folder to look into is that of the model before."""
    tokenizer = write_tokenizer(tmp_path / "student")
    rows = write_rows(tmp_path / "prepared", tokenizer)
    grid = load_grid(tiny_grid())
    plan = make_plan(grid, Outer(Store(grid.runtime.store).root))

    def folder(step: Step) -> Path:
        return rows if step.kind == "prepare" else tmp_path / step.slug

    work = cast(Any, SimpleNamespace(plan=plan, folder=folder, each=lambda steps: iter(())))
    assert plan.prepare is not None
    assert {plan.models[name].kind for name in ("student", "teacher")} == {"model", "teach"}
    require_all_known(plan.prepare, work)  # neither says how many it knows
    config = {"model_type": "llama", "vocab_size": len(tokenizer)}
    (tmp_path / role / "config.json").write_text(json.dumps(config))
    require_all_known(plan.prepare, work)
    (tmp_path / role / "config.json").write_text(json.dumps(config | {"vocab_size": 300}))
    with pytest.raises(
        InputError,
        match=rf"^{role}\.model: its embedding has 300 tokens, and rows 1, 2, 3 and \d+ more token 3\d\d \('",
    ):
        prepare([plan.prepare], work)  # rows that are there already, of an earlier run or another grid


@pytest.mark.parametrize("swapped", [False, True])
def test_tokenizers_that_no_check_could_compare_are_loaded_and_compared(
    swapped: bool, tiny_grid: TinyGrid, tmp_path: Path
) -> None:
    """As OPT's beside GPT-2's: files of words and merges, in the same format, with other ids."""
    tokenizer = write_tokenizer(tmp_path / "student")
    rows = write_rows(tmp_path / "prepared", tokenizer)
    plan = make_plan(grid := load_grid(tiny_grid()), Outer(Store(grid.runtime.store).root))
    model = json.loads((tmp_path / "student" / "tokenizer.json").read_text())["model"]
    vocabulary, (one, other) = model["vocab"], ("a", "b")
    if swapped:
        vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    (tmp_path / "teacher" / "tokenizer.json").unlink()
    (tmp_path / "teacher" / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "teacher" / "merges.txt").write_text("\n".join(" ".join(pair) for pair in model["merges"]))
    settings = {"tokenizer_class": "GPT2Tokenizer"} | dict.fromkeys(
        ("bos_token", "eos_token", "unk_token"), "<|im_end|>"
    )
    (tmp_path / "teacher" / "tokenizer_config.json").write_text(json.dumps(settings))

    def folder(step: Step) -> Path:
        return rows if step.kind == "prepare" else tmp_path / step.slug

    assert plan.prepare is not None
    with pytest.raises(InputError, match=r"teacher\.model: .*not the student's") if swapped else nullcontext():
        require_all_known(plan.prepare, cast(Any, SimpleNamespace(plan=plan, folder=folder)))


@pytest.mark.parametrize(
    ("alpha", "tune", "refused"), [([0, 1], None, True), ([0], {"lr": 1e-3, "steps": 1}, True), ([0], None, False)]
)
def test_a_teachers_own_prompt_opens_no_thought_before_what_it_labels(
    alpha: list[float], tune: dict[str, Any] | None, refused: bool, tiny_grid: TinyGrid, tmp_path: Path
) -> None:
    """As DeepSeek-R1's distillations do, beside a student that does not think; its answers alone may begin so."""
    rows = write_rows(tmp_path / "prepared", write_tokenizer(tmp_path / "student"))
    thinking = write_tokenizer(tmp_path / "teacher")
    thinking.chat_template = TEMPLATE + "<think>\n"
    thinking.save_pretrained(tmp_path / "teacher")
    changes = {
        "data.template": "chat",
        "axes.alpha": alpha,
        "axes.labels": ["teacher"],
        "teacher.tune": tune,
        "soft_labels": {"align": "text"},
    }
    plan = make_plan(load_grid(tiny_grid(changes)), Outer(Store(tmp_path / "store").root))

    def folder(step: Step) -> Path:
        return rows if step.kind == "prepare" else tmp_path / step.slug

    work = cast(Any, SimpleNamespace(plan=plan, folder=folder, each=lambda steps: iter(())))
    assert plan.prepare is not None
    found = r"^data\.template: the prompt of teacher\.model opens a thought, .* close_thought: true"
    with pytest.raises(InputError, match=found) if refused else nullcontext():
        prepare([plan.prepare], work)


def test_rows_that_ask_nothing_are_counted_unless_they_are_left_out_anyway(tmp_path: Path) -> None:
    cells = [("Say", ""), ("", "Ada"), (" ", "\n"), ("", ""), ("", ""), (None, None)]
    rows = [{"instruction": one, "context": other, "response": f"{i}."} for i, (one, other) in enumerate(cells)]
    rows[3]["response"] = ""
    assert sliced(tmp_path, TEMPLATE, {"name": "dolly"}, rows)["unasked"] == 3
    texts = [{"body": "Ada in Rome ."}]
    assert sliced(tmp_path / "texts", TEMPLATE, {"name": "text", "params": {"column": "body"}}, texts)["unasked"] == 0


def test_the_lengths_beyond_the_limits_come_back_with_a_slice(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Ada ? " * words, "context": "", "response": "Ada . " * said}
        for words, said in ((1, 1), (200, 1), (1, 200))
    ]
    made = sliced(tmp_path, TEMPLATE, {"name": "dolly"}, rows)
    assert (made["long"], made["truncated"]) == (1, 1)
    assert [length > 200 for length in made["prompts"]] == [True]
    assert [length > 256 for length in made["wholes"]] == [True]
