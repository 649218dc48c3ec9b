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
