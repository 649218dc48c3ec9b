"""Cases: chosen by the rule that is printed, marked where an answer leaves its article, and left out where texts may
not be shown.
"""

from __future__ import annotations

import hashlib
import statistics

import pytest

from kdray.report.page.cases import Pair, at_random, cases_of, pieces_of, typical_pair
from kdray.report.page.evidence import Evidence
from kdray.spec.metric_names import MetricName
from kdray.spec.points import Point
from tests.report.bench import CHANGES, Bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    axes = {"lr": [1e-4, 3e-4], "batch": [4], "alpha": [0, 1], "seed": [0]}
    return Bench(tmp_path_factory.mktemp("cases"), {"axes": axes}, items=40).finish()


def test_the_pair_is_the_one_nearest_to_the_mean(bench: Bench) -> None:
    evidence = Evidence(bench.results)
    pair = typical_pair(evidence, bench.store)
    assert pair
    values = {lr: [evidence.score(p, pair.metric).value for p in evidence.points if p.lr == lr] for lr in (1e-4, 3e-4)}
    deltas = {lr: other - sft for lr, (sft, other) in values.items()}
    mean = statistics.fmean(deltas.values())
    assert pair.sft.lr == pair.other.lr == min(deltas, key=lambda lr: abs(deltas[lr] - mean))
    assert (pair.sft.alpha, pair.other.alpha) == (0, 1)
    assert len(pair.items) == 40


def test_cases_are_the_items_that_the_rule_names(bench: Bench) -> None:
    evidence = Evidence(bench.results)
    pair, cases = typical_pair(evidence, bench.store), cases_of(evidence, bench.store)
    assert pair
    assert cases
    assert cases.metric == "xsum_lettuce"
    assert cases.marked_by == "lettucedetect"
    chosen = {title: [case.item for case in found] for title, found in cases.groups}
    assert list(chosen) == ["Where KD 1 is better", "Where SFT is better", "At random"]
    assert [len(items) for items in chosen.values()] == [2, 2, 2]
    assert all(pair.gain(item) == 100 for item in chosen["Where KD 1 is better"])
    assert all(pair.gain(item) == -100 for item in chosen["Where SFT is better"])
    taken = {*chosen["Where KD 1 is better"], *chosen["Where SFT is better"]}
    by_hash = sorted(range(40), key=lambda item: hashlib.sha256(f"rich:{item}".encode()).hexdigest())
    assert chosen["At random"] == [item for item in by_hash if item not in taken][:2]
    better = cases.groups[0][1][0]
    assert [said.who for said in better.answers] == ["SFT", "KD 1"]
    assert [said.score for said in better.answers] == ["0.00", "100.00"]
    assert [any(piece.unsupported for piece in said.pieces) for said in better.answers] == [True, False]
    assert cases.by_lens
    assert ["".join(piece.text for piece in said.pieces if piece.doubted) for said in better.answers] == [
        "".join(piece.text for piece in said.pieces)[4:20] for said in better.answers
    ]
    assert "".join(piece.text for piece in better.answers[0].pieces).startswith(better.article[:5].split()[0])


def test_no_text_is_shown_where_cases_are_none(bench: Bench) -> None:
    results = bench.results
    results.plan.grid.report.__dict__["cases"] = 0
    assert cases_of(Evidence(results), bench.store) is None


def test_a_metric_whose_model_is_not_resolved_yet_marks_nothing(bench: Bench) -> None:
    """It was added to a grid that is scored: its steps have no ids."""
    text = bench.path.read_text()
    try:
        changes = {"axes": {"lr": [1e-4, 3e-4], "batch": [4], "alpha": [0, 1], "seed": [0]}}
        metrics = [{"name": "lettucedetect", "model": "hf:org/model"}]
        bench.grid(CHANGES | changes | {"score.metrics": metrics, "report": {"primary": "xsum/rougeL", "cases": 1}})
        cases = cases_of(Evidence(bench.results), bench.store)
    finally:
        bench.path.write_text(text)
    assert cases
    assert (cases.metric, cases.marked_by) == ("xsum_rougeL", "")
    assert not any(
        piece.unsupported
        for _, found in cases.groups
        for case in found
        for said in case.answers
        for piece in said.pieces
    )


def test_less_may_be_better() -> None:
    sft, other = Point(0.0, 1e-4, 4, 0), Point(1.0, 1e-4, 4, 0)
    for name, gain in (("heldout_answers/rougeL", -1.5), ("heldout_answers/empty", 1.5)):
        assert Pair(MetricName.parse(name), sft, other, ({7: 3.0, 8: 1.0}, {7: 1.5})).gain(7) == gain


@pytest.mark.parametrize(
    ("answer", "article", "spans", "pieces"),
    [
        ("It rained.", "it Rained", [], [("It rained.", False, False)]),
        ("It snowed here.", "It rained here", [], [("It ", 0, 0), ("snowed", 0, 1), (" here.", 0, 0)]),
        (
            "It snowed here.",
            "It rained here",
            [(3, 14)],
            [("It ", 0, 0), ("snowed", 1, 1), (" here", 1, 0), (".", 0, 0)],
        ),
        ("ab", "ab", [(-5, 99)], [("ab", True, False)]),
        ("It\u2019s new", "It's new", [], [("It\u2019s new", 0, 0)]),
        ("anything", "", [], [("anything", False, False)]),
        ("", "x", [(0, 0)], []),
    ],
)
def test_an_answer_is_cut_at_spans_and_new_words(answer, article, spans, pieces) -> None:
    found = pieces_of(answer, article, spans)
    assert [(piece.text, piece.unsupported, piece.new) for piece in found] == pieces
    assert "".join(piece.text for piece in found) == answer


def test_what_a_lens_doubts_is_cut_out_too() -> None:
    found = pieces_of("It snowed here.", "It rained here", [(3, 14)], [(0, 9)])
    assert [(p.text, p.unsupported, p.new, p.doubted) for p in found] == [
        ("It ", False, False, True),
        ("snowed", True, True, True),
        (" here", True, False, False),
        (".", False, False, False),
    ]


def test_chance_depends_on_the_seed_alone() -> None:
    assert at_random([3, 1, 2], "a") == at_random([1, 2, 3], "a")
    assert len({tuple(at_random(range(20), seed)) for seed in "abc"}) == 3
