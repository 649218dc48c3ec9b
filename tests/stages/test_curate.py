"""Rows balanced by concept: corpora by themselves, and points of a grid that train on them."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdray.artifacts.curated import MATCHES, ROWS, read_chosen, read_concepts, write_metadata
from kdray.artifacts.curve import read_curve
from kdray.artifacts.parts import parts
from kdray.artifacts.rows import Rows
from kdray.curate.balance import entry_chances, row_chances, threshold_of
from kdray.curate.matching import Matcher
from kdray.orchestration import curating
from kdray.orchestration.concepts import read_entries
from kdray.orchestration.curating import WORDS, Balance, Slices, _as_row, _keep, _match, _together, _words, curate
from kdray.orchestration.session import ray_session
from kdray.plan.inputs import CurateInputs
from kdray.spec import InputError
from kdray.spec.refs import parse_reference
from kdray.spec.sections.running import Runtime
from kdray.stages.curate import RowTexts
from kdray.store import Outer, io
from tests.here import run_here
from tests.tiny import NAMES, write_grid, write_rows, write_tokenizer

ENTRIES = {"en": ["axolotl", "cat", "dog", "of the"]}
TEXTS = ["a dog", "a Dog of the town", "dog, cat", "the cat", "axolotl", "nothing", "dog dog", "of the dog"]


class Given:
    """Texts in memory, whose rows are numbered from 100."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def read(self, begin: int, end: int) -> tuple[np.ndarray, list[str]]:
        return np.arange(100 + begin, 100 + min(end, len(self))), self.texts[begin:end]


@pytest.fixture
def session(one_ray: None, tmp_path: Path) -> Iterator[None]:
    with ray_session(Runtime(store=str(tmp_path / "store"))):
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / curating.MATCHED).mkdir()
    write_metadata(tmp_path, ENTRIES)
    return tmp_path


def test_a_slice_is_matched_once_and_counted_again_from_its_part(folder: Path) -> None:
    rows, some, counts = _match(Slices(Given(TEXTS)), ("en",), folder, {}, 0)
    assert (rows, some) == (8, 7)
    assert {row["entry"]: row["count"] for row in counts.to_pylist()} == {0: 1, 1: 2, 2: 5, 3: 2}
    written = parts(folder / curating.MATCHED)
    table = pq.read_table(written[0]).cast(MATCHES)
    assert table["row"].to_pylist() == list(range(100, 108))
    assert table["entries"].to_pylist() == [[2], [2, 3], [1, 2], [1], [0], [], [2], [2, 3]]
    again = _match(Slices(Given(["other"])), ("en",), folder, written, 0)
    assert (again[0], again[1], again[2].to_pylist()) == (rows, some, counts.to_pylist())


def test_rows_are_kept_by_their_draws_and_those_of_rare_concepts_always(folder: Path) -> None:
    _match(Slices(Given(TEXTS)), ("en",), folder, {}, 0)
    counts = np.array([1, 2, 5, 2])
    chances = entry_chances(threshold_of(0.1, counts), counts)
    np.save(folder / curating.MATCHED / "en.npy", chances)
    rows, kept, _ = _keep(folder, 0, parts(folder / curating.MATCHED), {}, 0)
    table = pq.read_table(parts(folder)[0]).cast(ROWS)
    assert (rows, kept) == (8, sum(table["kept"].to_pylist()))
    assert table["chance"].to_pylist() == pytest.approx([0.2, 0.6, 0.6, 0.5, 1, 0, 0.2, 0.6])
    assert table["kept"][4].as_py()
    assert not table["kept"][5].as_py()


def test_words_of_a_slice_are_counted_by_language() -> None:
    texts = ["the house is big", "das Haus ist groß und schön", "the house"]
    rows, _, table = _words(Slices(Given(texts)), ("en", "de"), 0)
    found = {(row["language"], row["one"], row["other"]): row["count"] for row in table.to_pylist()}
    assert rows == 3
    assert found["en", "house", None] == 2
    assert found["en", "the", "house"] == 2
    assert found["de", "haus", None] == 1


def test_answers_are_added_up_before_they_reach_the_driver() -> None:
    words = pa.table([["en", "en"], ["new", "new"], [None, "york"], [2, 1]], schema=WORDS)
    summed = _together(pa.concat_tables([_as_row(3, 3, words, ""), _as_row(4, 1, words.slice(1), "")]))
    assert summed.select(["rows", "some", "error"]).to_pylist() == [{"rows": 7, "some": 4, "error": ""}]
    counts = pa.ipc.open_stream(summed["table"][0].as_py()).read_all()
    assert sorted(map(tuple, zip(*(column.to_pylist() for column in counts.columns), strict=True)), key=str) == [
        ("en", "new", "york", 2),
        ("en", "new", None, 2),
    ]
    wrong = _together(pa.concat_tables([_as_row(3, 3, words, ""), _as_row(0, 0, words, "[1]")]))
    assert wrong["error"].to_pylist() == ["[1]"]


def test_concepts_that_are_not_what_they_were_when_the_run_began_are_refused(tmp_path: Path) -> None:
    table, outer = tmp_path / "metadata.jsonl", Outer(tmp_path / "store")
    table.write_text('{"entry": "Cat", "language": "en"}\n')
    ref = parse_reference(f"file:{table}", "data.curate.metadata")
    planned = outer.resolve(ref)
    assert read_entries(ref, outer, ["en"], planned) == {"en": ["cat"]}
    io.delete(outer.root / "cache")
    table.write_text('{"entry": "Dog", "language": "en"}\n')
    with pytest.raises(InputError, match=r"^data\.curate\.metadata: .* has changed since the run began"):
        read_entries(ref, outer, ["en"], planned)


def test_texts_of_prepared_rows_travel_without_the_rows(tmp_path: Path) -> None:
    texts = RowTexts(
        write_rows(tmp_path / "rows", write_tokenizer(tmp_path / "tokenizer")), ("instruction", "response")
    )
    rows = Rows(tmp_path / "rows")
    numbers, read = texts.read(0, len(texts))
    assert numbers.tolist() == rows.table["source_row"].to_numpy()[rows.train].tolist()
    first = int(rows.train[0])
    assert read[0] == f"{rows.text(first, 'instruction')}\n{rows.text(first, 'response')}"
    assert copy.deepcopy(texts).read(1, 2)[1] == read[1:2]
    assert len(pickle.dumps(texts)) < 500


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("session")
def test_the_choice_does_not_depend_on_how_texts_are_cut_nor_on_an_interruption(tmp_path: Path) -> None:
    texts, balance = TEXTS * 40, Balance(("en",), 3, 0.0, 5)
    found = []
    for size in (4096, 64):
        made = curate(Given(texts), ENTRIES, balance, tmp_path / f"{size}", size=size)
        table = pq.read_table([str(path) for path in parts(tmp_path / f"{size}").values()])
        found.append((made, table.to_pylist()))
    assert found[0] == found[1]
    made, rows = found[0]
    matcher = Matcher(ENTRIES["en"])
    entries = [matcher(text) for text in texts]
    counts = np.bincount(np.concatenate(entries), minlength=4)
    assert made.thresholds == {"en": 3}
    assert made.matched == sum(map(bool, map(len, entries)))
    each = entry_chances(3, counts)
    expected = [row_chances(each[some], np.zeros(len(some), int), 1)[0] for some in entries]
    assert [row["chance"] for row in rows] == pytest.approx(expected)
    concepts = read_concepts(tmp_path / "64").to_pylist()
    assert [row["matches"] for row in concepts] == counts.tolist()
    kept = np.bincount(np.concatenate([some for some, row in zip(entries, rows, strict=True) if row["kept"]]))
    assert [row["kept"] for row in concepts] == kept.tolist()
    # Cut off behind the first part of the last pass, with all matches there.
    (again := tmp_path / "again").mkdir()
    (again / curating.MATCHED).mkdir()
    write_metadata(again, ENTRIES)
    first = parts(tmp_path / "64")[0]
    (again / first.name).hardlink_to(first)
    assert curate(Given(texts), ENTRIES, balance, again, size=64) == made
    with pytest.raises(InputError, match="metadata: no entry is in any of 320 texts"):
        curate(Given(texts), {"en": ["zebra"]}, balance, tmp_path / "none")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("one_ray")
def test_points_train_on_balanced_rows_beside_as_many_at_random(tmp_path: Path) -> None:
    metadata = tmp_path / "metadata.jsonl"
    metadata.write_text("".join(json.dumps({"entry": name, "language": "en"}) + "\n" for name in ["where", *NAMES]))
    grid = write_grid(
        tmp_path,
        axes="{lr: [3.0e-3], batch: [4], alpha: [1], rows: [all, balanced, random]}",
        train="{epochs: 1}",
        score="{tasks: [heldout_loss], references: [], batch: 3}",
    )
    text = grid.read_text().replace("data: {", f'data: {{curate: {{metadata: "file:{metadata}", threshold: 2}}, ')
    grid.write_text(text)
    plan, store, failed = run_here(grid)
    assert failed == {}
    step = next(step for step in plan.steps() if isinstance(step.inputs, CurateInputs))
    assert plan.prepare
    made, prepared = (found.path for each in (step, plan.prepare) if (found := store.get(each.key)))
    balanced, random = (read_chosen(made, name) for name in ("balanced", "random"))
    rows = Rows(prepared)
    trained = set(rows.table["source_row"].to_numpy()[rows.train].tolist())
    assert 0 < len(balanced) == len(random) < len(trained)
    assert set(balanced.tolist()) | set(random.tolist()) <= trained
    lengths: dict[str, set[float]] = {}
    for point in plan.points:
        artifact = store.get(point.train.key)
        assert artifact
        lengths.setdefault(point.point.rows, set()).add(read_curve(artifact)[-1]["step"])
    assert lengths["balanced"] == lengths["random"] == {max(1, round(len(balanced) / 4))}
    assert lengths["all"] == {round(len(trained) / 4)}
    assert len({step.id for step in plan.steps() if step.kind == "soften"}) == 1  # for whichever rows
