"""`kdray metadata` and `kdray curate` on tables."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from kdray.artifacts.curated import read_concepts
from kdray.artifacts.parts import parts
from kdray.curate.metadata import titles_in, wordnet_lemmas, write_entries
from kdray.store.locks import Locks
from tests.conftest import Run

TEXTS = ["A dog in New York.", "a dog", "The dog of New York", "a quoll", "nothing else"] * 20


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    (tmp_path / "wordnet").mkdir()
    lines = ["  1 This software is licensed to you", "quoll n 1 1 @ 1 0 02442845  ", "New_York n 2 3 @ #p ;c 2 2 1 2  "]
    (tmp_path / "wordnet" / "index.noun").write_text("\n".join(lines) + "\n")
    (tmp_path / "titles.txt").write_text("Dog\nNew York\n\n")
    return tmp_path


def test_wordnet_and_titles_are_concepts_each_once(here: Path) -> None:
    assert list(wordnet_lemmas(here / "wordnet")) == ["quoll", "New York"]
    given = [(lemma, "en", "WordNet") for lemma in wordnet_lemmas(here / "wordnet")]
    given += [(title, "en", "titles") for title in titles_in(here / "titles.txt")]
    assert write_entries(here / "out.jsonl", given) == {"WordNet": 2, "titles": 1}
    rows = [json.loads(line) for line in (here / "out.jsonl").read_text().splitlines()]
    assert [row["entry"] for row in rows] == ["quoll", "new york", "dog"]


@pytest.mark.ray
@pytest.mark.slow
def test_a_corpus_gives_concepts_and_is_balanced_by_them(here: Path, run: Run) -> None:
    code, stdout, stderr = run(
        *("metadata", "file:texts.jsonl", "--least", "20", "--pairs", "1", "--wordnet", "wordnet", "--to", "concepts")
    )
    assert (code, stderr) == (0, "")
    entries = [json.loads(line)["entry"] for line in (here / "concepts" / "metadata.jsonl").read_text().splitlines()]
    assert {"quoll", "new york", "dog", "nothing else"} <= set(entries)
    assert "from WordNet" in stdout

    command = ("curate", "file:texts.jsonl", "--metadata", "file:concepts/metadata.jsonl", "--threshold", "25")
    code, stdout, stderr = run(*command, "--to", "curated")
    assert (code, stderr) == (0, "")
    table = pq.read_table([str(path) for path in parts(here / "curated").values()]).to_pylist()
    assert [row["row"] for row in table] == list(range(100))
    rare = [row for row, text in zip(table, TEXTS, strict=True) if text == "a quoll"]
    assert all(row["kept"] for row in rare)
    assert (here / "curated" / "concepts.svg").read_text().startswith("<?xml")
    counts = {row["entry"]: row for row in read_concepts(here / "curated").to_pylist()}
    assert counts["dog"]["matches"] == 60
    assert counts["dog"]["chance"] == 25 / 60
    kept = sum(row["kept"] for row in table)
    assert 20 < kept < 100
    assert f"{kept} of 100 rows are kept" in stdout
    assert json.loads((here / "curated" / "summary.json").read_text())["thresholds"] == {"en": 25}

    before = (here / "curated" / "concepts.parquet").read_bytes()
    assert run(*command, "--to", "curated")[0] == 0  # again: the same
    assert (here / "curated" / "concepts.parquet").read_bytes() == before
    with Locks() as other:
        assert other.try_acquire(here / "curated" / "cache" / "curate")
        code, _, stderr = run(*command, "--to", "curated")
        holder = f"process {os.getpid()} on {platform.node()}"
        assert (code, stderr) == (2, f"error --to: {holder} curates into curated; wait, or give another folder\n")
    code, _, stderr = run(*command, "--seed", "1", "--to", "curated")
    assert (code, stderr) == (2, "error --to: curated holds another curation; give another folder\n")
