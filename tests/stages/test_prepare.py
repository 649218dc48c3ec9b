"""The prepare stage on Ray Data: what it writes, what it counts, and the one line that says why it cannot."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from kdray.artifacts.rows import Rows
from kdray.cli.progress import Terminal
from kdray.data.collate import collate
from kdray.models.load import load_tokenizer
from kdray.plan import make_plan
from kdray.spec import InputError, load_grid
from kdray.spec.refs import parse_reference
from kdray.spec.sections.running import Runtime
from kdray.store import Locks, Outer, Store
from tests.tiny import write_grid, write_instructions

pytestmark = [pytest.mark.ray, pytest.mark.slow]
Prepare = Callable[..., tuple[Rows, dict[str, Any]]]
ALPHA = {"teacher": "null", "axes": "{lr: [1.0e-3], batch: [4], alpha: [0]}"}


@pytest.fixture(scope="module")
def resources() -> Iterator[Any]:
    from kdray.orchestration.session import ray_session

    with ray_session(Runtime(store="unused")) as resources:
        yield resources


@pytest.fixture
def prepare(resources: Any, tmp_path: Path) -> Prepare:
    """`prepare("file.jsonl", recipe="text", limit=10)`: the prepared rows and the facts in their record."""
    from kdray.orchestration.work import Work
    from kdray.stages.model import model
    from kdray.stages.prepare import prepare as stage

    def run(file: str, **fields: Any) -> tuple[Rows, dict[str, Any]]:
        data = {"source": f"file:{tmp_path / file}", "max_prompt": 200, "max_length": 256, "heldout": 4} | fields
        grid = load_grid(write_grid(tmp_path, data=json.dumps(data), **ALPHA))
        store = Store(grid.runtime.store)
        outer = Outer(store.root)
        plan = make_plan(grid, outer)
        with Terminal(Console(quiet=True)) as progress, Locks() as locks:
            work = Work(plan, store, outer, locks, progress, resources)
            model([plan.prepare.inputs.tokenizer], work)
            stage([plan.prepare], work)
        artifact = store.get(plan.prepare.key)
        assert artifact is not None
        return Rows(artifact.path), artifact.facts

    return run


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_rows_keep_their_order_over_many_slices_and_every_loss_is_counted(prepare: Prepare, tmp_path: Path) -> None:
    lines = write_instructions(tmp_path / "many.jsonl", 1200).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    rows[3]["response"] = " "
    rows[700]["context"] = "Rome " * 300
    for i in (5, 1100):
        rows[i]["response"] = "Paris " * 300
    write(tmp_path / "many.jsonl", rows)
    made, facts = prepare("many.jsonl", test=7)
    kept = [i for i in range(1200) if i not in (3, 700)]
    assert made.table["source_row"].to_pylist() == kept
    assert made.table["response"].to_pylist() == [rows[i]["response"].strip() for i in kept]
    assert {name: facts[name] for name in ("read", "kept", "skipped", "empty", "long", "truncated")} == {
        "read": 1200, "kept": 1198, "skipped": 0, "empty": 1, "long": 1, "truncated": 2,
    }  # fmt: skip
    assert (len(made.heldout), len(made.test), len(made.train)) == (4, 7, 1187)
    assert int(made.lengths.max()) == 256
    fewer, facts = prepare("many.jsonl", limit=600)
    assert fewer.table["source_row"].to_pylist() == kept[:600]
    assert facts["kept"] == 600


def test_the_first_rows_of_the_file_are_held_out_if_the_grid_says_so(prepare: Prepare, tmp_path: Path) -> None:
    rows = [{"instruction": f"Say {i}", "context": "", "response": " " if i == 1 else f"{i} ."} for i in range(20)]
    write(tmp_path / "first.jsonl", [*rows, rows[0]])
    made, facts = prepare("first.jsonl", split="first", heldout=3, test=2)
    sources = made.table["source_row"].to_pylist()
    assert [sources[row] for row in made.heldout] == [0, 2]  # the second one has no response
    assert [sources[row] for row in made.test] == [3, 4]
    assert [sources[row] for row in made.train] == list(range(5, 21))
    assert facts["repeated"] == 1  # the first row is the last one too
    with pytest.raises(InputError, match=r"^data.heldout: 21 of 20 usable rows"):
        prepare("first.jsonl", split="first", heldout=19, test=2)


def test_documents_become_pieces_that_stay_on_one_side(prepare: Prepare, tmp_path: Path) -> None:
    texts = [f"{i} lives in Paris now . " * (1 + i % 5) for i in range(40)]
    write(tmp_path / "texts.jsonl", [{"body": text} for text in [*texts, " ", None]])
    rows, facts = prepare("texts.jsonl", recipe={"name": "text", "column": "body"}, max_prompt=1, max_length=16)
    tokenizer = load_tokenizer(tmp_path / "student")
    assert (facts["read"], facts["skipped"], facts["kept"]) == (42, 2, len(rows))
    sources = rows.table["source_row"].to_pylist()
    for i, text in enumerate(texts):
        pieces = [rows.input_ids(row) for row, source in enumerate(sources) if source == i]
        learned = [token for piece in pieces for token in piece[1:]]
        assert [pieces[0][0], *learned] == [
            *tokenizer(text, add_special_tokens=False)["input_ids"],
            tokenizer.eos_token_id,
        ]
    assert set(rows.prompt_lengths.tolist()) == {1}
    assert rows.table["response"].null_count == len(rows)
    held = {sources[row] for row in rows.heldout}
    assert len(rows.heldout) >= 4
    assert not held & {sources[row] for row in rows.train}
    batch = collate(rows, rows.train[:3].tolist())
    assert len(batch.labels) == int((rows.lengths[rows.train[:3]] - 1).sum())


@pytest.mark.parametrize("split", ["train", "train[5:8]", "train[5:]+train[:5]"])
def test_a_slice_of_a_split_is_just_its_rows(split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    from kdray.data.mapped import open_rows, read_rows
    from kdray.spec.columns import recipe_columns

    load = datasets.load_dataset
    write(tmp_path / "rows.jsonl", [{"i": i} for i in range(10)])

    def fetch(*_: object, split: str, cache_dir: str, **__: object) -> Any:  # in the hub's place
        return load("json", data_files=str(tmp_path / "rows.jsonl"), split=split, cache_dir=cache_dir)

    monkeypatch.setattr(datasets, "load_dataset", fetch)
    wanted = {"train": [*range(10)], "train[5:8]": [5, 6, 7], "train[5:]+train[:5]": [*range(5, 10), *range(5)]}[split]
    ref = parse_reference(f"hf:org/name@{'0' * 40}#split={split}")
    for _ in range(2):  # and again, when it is there
        files, count = open_rows(ref, Outer(tmp_path / "store"), recipe_columns("dolly", {}), {})
        assert [row["i"] for row in read_rows(files, range(count)).values()] == wanted


def test_nested_columns_of_a_parquet_file_are_read(prepare: Prepare, tmp_path: Path) -> None:
    row = {"question": "Why?", "context": {"contexts": ["Ada is in Paris .", "So is Ben ."]}, "long_answer": "So ."}
    pq.write_table(pa.Table.from_pylist([row] * 6), tmp_path / "pubmed.parquet")
    rows, _ = prepare("pubmed.parquet", recipe="pubmed_qa")
    assert rows.text(0, "context") == "Ada is in Paris .\nSo is Ben ."


GOOD = {"instruction": "a", "context": "", "response": "b"}
BROKEN: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "no such column": ([{"instruction": "a", "response": "b"}] * 6, {}, "data.source: no column 'context' in file:"),
    "a nested column": ([GOOD | {"response": ["b"]}] * 6, {}, "data.source: column 'response' holds list<"),
    "numbers": ([GOOD | {"context": None}] + [GOOD | {"context": 5}] * 5, {}, "column 'context' holds int64 in file:"),
    "nothing usable": (
        [GOOD | {"response": ""}] * 6,
        {},
        "data: no usable row among 6 (0 left out by the recipe, 6 without a response, 0",
    ),
    "nothing short": (
        [GOOD] * 6,
        {"max_prompt": 3},
        "data: no usable row among 6 (0 left out by the recipe, 0 without a response, 6",
    ),
    "nothing to train on": ([GOOD] * 6, {"test": 2}, "data.heldout: 6 of 6 usable rows (0 left out"),
    "no rows": ([], {}, "has no rows; give a data set with rows"),
}


@pytest.mark.parametrize(("rows", "fields", "said"), BROKEN.values(), ids=[name.replace(" ", "-") for name in BROKEN])
def test_what_cannot_be_prepared_is_said_in_one_line(
    prepare: Prepare, tmp_path: Path, rows: list[dict[str, Any]], fields: dict[str, Any], said: str
) -> None:
    schema = None if rows else pa.schema({name: pa.string() for name in GOOD})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "rows.parquet")
    with pytest.raises(InputError) as caught:
        prepare("rows.parquet", **fields)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
