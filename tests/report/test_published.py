"""Published tables: every row says where it is from, and the numbers are the paper's."""

from __future__ import annotations

import re

import pytest

from kdray.report.published import FOLDER, published
from tests.conftest import ROOT


def test_overconfidence_is_table_3_of_the_paper():
    rows = published("overconfidence")
    assert {(row["model"], row["method"]): row["accuracy"] for row in rows} == {
        ("Llama-2-7B", "vanilla"): 32.8,
        ("Llama-2-7B", "SFT"): 48.8,
        ("Mistral-7B", "vanilla"): 70.0,
        ("Mistral-7B", "SFT"): 76.4,
        ("Pythia-6.9B", "vanilla"): 20.6,
        ("Pythia-6.9B", "SFT"): 19.4,
        ("Falcon-7B", "vanilla"): 21.3,
        ("Falcon-7B", "SFT"): 20.4,
    }
    assert [row["shots"] for row in rows] == ["few", 0.0] * 4


def test_the_page_on_scoring_has_the_published_accuracies():
    page = (ROOT / "docs" / "scoring.md").read_text()
    for row in published("overconfidence"):
        line = re.search(rf"^\| {row['model']} \|.*$", page, re.MULTILINE)
        assert line
        assert f" {row['accuracy']:.1f} " in line[0]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.csv")), ids=lambda path: path.stem)
def test_every_row_of_a_table_says_where_it_is_from(path):
    rows = published(path.stem)
    assert rows
    assert all(str(row["source"]).startswith("arXiv:") for row in rows)


def test_a_table_that_is_not_there_is_named():
    with pytest.raises(KeyError, match=r"no published table 'overconfidense': there are .*overconfidence"):
        published("overconfidense")


@pytest.mark.parametrize(
    ("name", "family", "alpha", "metric", "mean", "sd"),
    [
        ("hallucination", "Llama-2-7B", 10, "xsum/fc", 76.2, 1.5),
        ("hallucination", "Llama3.1-8B", 0, "cnn_dailymail/rougeL", 31.4, 0.32),
        ("hallucination", "Qwen2.5-7B", 1, "xsum/fr", 73.6, 1.9),
        ("benchmarks", "Llama-2-7B", 0, "arc_easy/acc_norm", 50.1, 1.0),
        ("benchmarks", "Qwen2.5-7B", 0.01, "openbookqa/acc_norm", 48.5, 1.8),
    ],
)
def test_the_papers_first_tables_are_whole(name, family, alpha, metric, mean, sd):
    rows = published(name)
    cells = {(row["family"], row["alpha"], row["metric"]): (row["mean"], row["sd"]) for row in rows}
    assert cells[family, alpha, metric] == (mean, sd)
    assert (
        len(cells) == len(rows) == 3 * 4 * len({row["metric"] for row in rows})
    )  # families x (SFT and three alphas) x metrics
