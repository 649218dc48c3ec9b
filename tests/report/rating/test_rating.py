"""Blind ratings: nobody can tell whose answer is whose, and what comes back is counted for whom it was about."""

from __future__ import annotations

import csv
import html
import json
import re
from pathlib import Path

import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from kdray.artifacts.answers import read_answers
from kdray.report.page.evidence import Evidence
from kdray.report.rating.page import write_rating_page
from kdray.report.rating.ratings import Ratings, outcome_of, read_ratings, told
from kdray.report.rating.sheet import KEY, Key, make_sheet
from kdray.spec import InputError
from tests.report.bench import EVIL, Bench

SHEET = Key("rich-1", ("SFT", "KD 1"), ("a", "b"), {4: False, 7: True, 9: False, 2: True})
HEAD = "sheet,rater,item,side,supported"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    axes = {"lr": [1e-4], "batch": [4], "alpha": [0, 1], "seed": [0]}
    return Bench(tmp_path_factory.mktemp("rated"), {"axes": axes}, items=30).finish()


def saved(path: Path, rater: str, ratings: dict[tuple[int, str], int], sheet: str = "rich-1") -> Path:
    """A file as the page saves it."""
    lines = [HEAD, *(f'"{sheet}","{rater}",{item},{side},{value}' for (item, side), value in ratings.items())]
    path.write_bytes(("\r\n".join(lines) + "\r\n").encode())
    return path


def test_a_sheet_has_both_answers_of_every_item_in_an_order_that_only_the_key_knows(
    bench: Bench, tmp_path: Path
) -> None:
    key, questions = make_sheet(Evidence(bench.results), bench.store, 20)
    assert (key.arms, len(questions), key.items) == (("SFT", "KD 1"), 20, [question.item for question in questions])
    answers = []
    for alpha in (0.0, 1.0):
        steps = [
            s.generate
            for s in bench.plan.scores
            if s.generate and not isinstance(s.subject, str) and s.subject.alpha == alpha
        ]
        artifact = bench.store.get(next(step.key for step in steps if "s40" in step.slug))
        assert artifact
        answers.append({row["example"]: row["answer"] for row in read_answers(artifact.path)})
    for question in questions:
        pair = (answers[0][question.item], answers[1][question.item])
        assert question.answers == (pair[::-1] if key.swapped[question.item] else pair)
    assert 0 < sum(key.swapped.values()) < 20
    again, _ = make_sheet(Evidence(bench.results), bench.store, 20)
    assert again.items == key.items
    assert (again.sheet, again.swapped) != (key.sheet, key.swapped)
    text = write_rating_page(key, questions, tmp_path).read_text()
    for name in ("SFT", "KD 1", "swapped", *key.runs):
        assert name not in text
    assert text.count("<script>") == 1
    assert html.escape(EVIL, quote=False).replace("'", "&#39;") in text
    assert re.search(r"script-src &#39;|script-src 'sha256-", text)
    assert not re.search(r"""(src|href)=["'](?!#)""", text)


@pytest.mark.slow
def test_the_command_makes_a_page_and_reads_what_was_saved(bench: Bench, run, tmp_path: Path) -> None:
    code, said, _ = run("rate", bench.path, "--n", "5")
    folder = bench.store.root / "report" / "rich"
    assert code == 0
    assert "(5 articles)" in said
    assert (folder / "rating.html").is_file()
    key = json.loads((folder / KEY).read_text())
    code, _, problem = run("rate", bench.path)
    assert (code, "has a sheet already" in problem) == (2, True)  # its ratings would be lost
    better = {
        (int(i), side): int((side == "left") == swapped)
        for i, swapped in key["swapped"].items()
        for side in ("left", "right")
    }
    one = saved(tmp_path / "one.csv", "Ann", better, key["sheet"])
    code, said, _ = run("rate", bench.path, "--read", one)
    assert code == 0
    assert "Called supported by their articles: 100.0% of KD 1's answers, 0.0% of SFT's." in said
    code, _, problem = run("rate", bench.path, "--read", tmp_path / "none.csv")
    assert (code, "--read: no file" in problem) == (2, True)
    code, _, problem = run("rate", bench.path, "--arm", "KD 7")
    assert (code, "did you mean 'KD 1'?" in problem) == (2, True)


def test_the_difference_and_the_agreement_are_scipys_and_scikit_learns() -> None:
    one = {
        (4, "left"): 0,
        (4, "right"): 1,
        (7, "left"): 1,
        (7, "right"): 0,
        (9, "left"): 1,
        (9, "right"): 1,
        (2, "left"): 0,
        (2, "right"): 1,
    }
    other = one | {(4, "left"): 1, (9, "right"): 0}
    outcome = outcome_of(SHEET, [Ratings("Ann", one), Ratings("Bob", other)])
    sft, arm = [0.5, 0, 1, 1], [1, 1, 0.5, 0]  # items 7 and 2 are swapped
    test = stats.ttest_rel([100 * value for value in arm], [100 * value for value in sft])
    assert outcome.shares == (62.5, 62.5)
    assert (outcome.difference, outcome.better, outcome.worse) == (0.0, 2, 2)
    interval = test.confidence_interval(0.95)
    assert outcome.interval == pytest.approx((interval.low, interval.high))
    [agreement] = outcome.agreements
    places = sorted(one)
    assert agreement.kappa == pytest.approx(cohen_kappa_score([one[p] for p in places], [other[p] for p in places]))
    assert (agreement.both, agreement.alike) == (8, 75.0)
    assert "not distinguishable from no difference" in told(outcome)[1]
    assert "Ann and Bob: Cohen's kappa 0.47, 75% alike of 8 answers." in told(outcome)


def test_what_is_not_rated_is_told_and_left_out() -> None:
    outcome = outcome_of(SHEET, [Ratings("Ann", {(4, "left"): 0, (4, "right"): 1, (7, "left"): 1})])
    assert (outcome.items, outcome.difference, outcome.interval) == (1, 100.0, None)
    assert told(outcome)[-1] == "Note: Ann: 5 of 8 answers are not rated."
    same = {(4, "left"): 1, (4, "right"): 1}
    apart = told(outcome_of(SHEET, [Ratings("Ann", same), Ratings("Bob", {(9, "left"): 1, (9, "right"): 1})]))
    assert "Ann and Bob: no answer that both have rated." in apart
    assert "undefined" in told(outcome_of(SHEET, [Ratings("Ann", same), Ratings("Bob", same)]))[2]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a,b\n1,2\n", "the columns a, b; needs sheet, rater"),
        ("", "the columns of nothing"),
        (f"{HEAD}\n", "0 raters"),
        (f"{HEAD}\nrich-1,Ann,4,left,1\nrich-1,Bob,4,right,1\n", "2 raters"),
        (f"{HEAD}\nrich-2,Ann,4,left,1\n", "line 2 is of the sheet 'rich-2'"),
        (f"{HEAD}\nrich-1,Ann,5,left,1\n", "line 2 rates 'left' of item '5'"),
        (f"{HEAD}\nrich-1,Ann,4,middle,1\n", "line 2 rates 'middle' of item '4'"),
        (f"{HEAD}\nrich-1,Ann,4,left,yes\n", "line 2 says 'yes'"),
        (f"{HEAD}\nrich-1,Ann,4,left,1\nrich-1,Ann,4,left,0\n", "line 3 rates left of item 4 again"),
        (f"{HEAD}\nrich-1,Ann,4\n", "line 2 rates"),
        (b"\xff\xfe\x00s", "no csv"),
    ],
)
def test_foreign_files_are_one_line(tmp_path: Path, content: str | bytes, says: str) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=re.escape(says)):
        read_ratings(path, SHEET)


def test_a_file_that_a_spreadsheet_saved_again_is_read(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([HEAD.split(","), ["rich-1", "Ann, B.", 4, "left", 1]])
    assert read_ratings(path, SHEET) == Ratings("Ann, B.", {(4, "left"): 1})


def test_two_files_of_one_rater_and_files_without_a_pair_are_refused() -> None:
    with pytest.raises(InputError, match="two files of the rater 'Ann'"):
        outcome_of(SHEET, [Ratings("Ann", {(4, "left"): 1}), Ratings("Ann", {(4, "left"): 1})])
    with pytest.raises(InputError, match="no item has both answers rated"):
        outcome_of(SHEET, [Ratings("Ann", {(4, "left"): 1, (7, "left"): 1})])
