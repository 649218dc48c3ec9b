"""Differences item by item, and the sentences that they allow, from rows written as `measure` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdray.artifacts.answers import write_answers
from kdray.artifacts.scores import read_scores, write_scores
from kdray.plan import make_plan
from kdray.report.arms import Arm
from kdray.report.compared import compared_rows
from kdray.report.crossed import crossed
from kdray.report.results import Checkpoint, Results
from kdray.report.statistics import comparisons, difference
from kdray.report.verdict import verdict
from kdray.report.write import write_report
from kdray.spec import load_grid
from kdray.spec.metric_names import MetricName
from kdray.spec.points import Point
from kdray.store import Outer
from tests.conftest import TinyGrid

LRS = [1e-3, 3e-4, 1e-4]
SUPPORT, ARC = MetricName("xsum", "support"), MetricName("arc_easy", "acc")
TASKS = [{"name": "xsum", "source": "file:HERE/xsum.jsonl"}, {"name": "arc_easy", "source": "file:HERE/arc.jsonl"}]
KD = Arm("gold", 1.0)
Values = dict[tuple[float, float], np.ndarray]  # by alpha and lr: of every item


class Bench:
    """A grid of two arms, or of one that is called KD 1 and one that is called KD 10 beside SFT."""

    def __init__(
        self, tiny_grid: TinyGrid, changes: dict[str, Any] | None = None, alphas: tuple[float, ...] = (0.0, 1.0)
    ) -> None:
        (tiny_grid.folder / "arc.jsonl").touch()
        fixed = {"axes.lr": LRS, "axes.alpha": list(alphas), "score.tasks": TASKS, "score.metrics": ["support_standin"]}
        grid = load_grid(tiny_grid(fixed | {"report.primary": "xsum/support"} | (changes or {})))
        self.folder = tiny_grid.folder / "rows"
        self.results = Results(make_plan(grid, Outer(tiny_grid.folder / "store")), [], {})
        for point in self.results.plan.points:
            self.results.checkpoints.append(Checkpoint(point.point, 4.0, 8))

    def score(self, metric: MetricName, values: Values, scale: float = 1.0, items: range | None = None) -> None:
        """Rows of every run; a value that is not a number is none."""
        for (alpha, lr), of_items in values.items():
            checkpoint = self._of(alpha, lr)
            folder = self.folder / f"{metric}-{alpha}-{lr}"
            folder.mkdir(parents=True)
            known = of_items[~np.isnan(of_items)]
            score = {"value": scale * float(known.mean()), "stderr": 1.0, "n": len(known)}
            names = items or range(len(of_items))
            rows = [
                {"example": item, metric.metric: None if np.isnan(value) else float(value)}
                for item, value in zip(names, of_items, strict=True)
            ]
            write_scores(folder, {metric.metric: score}, rows)
            checkpoint.scores[metric], checkpoint.rows[metric] = read_scores(folder)[metric.metric], folder

    def answer(self, answers: dict[tuple[float, float], list[str]], source: str) -> None:
        for (alpha, lr), texts in answers.items():
            folder: Path = self.folder / f"answers-{alpha}-{lr}"
            folder.mkdir(parents=True)
            empty: dict[str, Any] = {
                "input_ids": [1],
                "question": "",
                "references": [],
                "wrong": [],
                "output_ids": [],
                "thought_ids": [],
            }
            write_answers(
                folder,
                0,
                [empty | {"example": i, "source": source, "answer": text} for i, text in enumerate(texts)],
                1.0,
            )
            self._of(alpha, lr).answers[SUPPORT] = folder

    def _of(self, alpha: float, lr: float) -> Checkpoint:
        return next(c for c in self.results.checkpoints if c.subject == Point(alpha, lr, 2, 0))


def noise(seed: int, items: int = 120) -> Values:
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 1, items)
    return {(alpha, lr): hard + rng.normal(0, 0.5, items) for alpha in (0.0, 1.0) for lr in LRS}


def shifted(values: Values, by: float) -> Values:
    return {(alpha, lr): row + by * (alpha > 0) for (alpha, lr), row in values.items()}


def test_items_are_paired_in_every_cell(tiny_grid: TinyGrid) -> None:
    bench, values = Bench(tiny_grid), shifted(noise(0), 1.0)
    bench.score(SUPPORT, values)
    found, wanted = (
        difference(bench.results, SUPPORT, KD),
        crossed(np.stack([values[1.0, lr] - values[0.0, lr] for lr in LRS])),
    )
    assert found
    assert wanted
    assert (found.pairs, found.items, found.left_out, found.why) == (3, 120, 0, "")
    assert found.mean == pytest.approx(wanted.mean)
    assert found.interval == pytest.approx(wanted.interval())
    assert found.p == pytest.approx(wanted.p)
    text = verdict(bench.results)
    assert text[0].startswith("On xsum_support, KD 1 scores +")
    assert text[0].endswith("against SFT (better). That metric is a stand-in and measures no facts.")
    assert text[1].startswith(
        "That is over 120 items in each of 3 pairs of runs (one seed, so that seeds are no part of the interval)"
    )


def test_a_planted_null_is_not_found_and_the_smallest_difference_is_said(tiny_grid: TinyGrid) -> None:
    bench = Bench(tiny_grid)
    bench.score(SUPPORT, noise(1))
    text, found = verdict(bench.results), difference(bench.results, SUPPORT, KD)
    assert "(no difference shown)" in text[0]
    assert found
    assert found.smallest
    assert text[2] == f"A difference of {found.smallest:.2f} would have been found four times in five."


def test_accuracies_are_in_percent_as_in_tables(tiny_grid: TinyGrid) -> None:
    bench = Bench(tiny_grid, {"report.primary": "arc_easy/acc"})
    right = {key: (row > 0).astype(float) for key, row in shifted(noise(2), 2.0).items()}
    bench.score(ARC, right, scale=100.0)
    found = difference(bench.results, ARC, KD)
    assert found
    assert found.mean == pytest.approx(100 * np.mean([right[1.0, lr].mean() - right[0.0, lr].mean() for lr in LRS]))


def test_of_one_run_accuracies_are_tested_by_mcnemar(tiny_grid: TinyGrid) -> None:
    bench = Bench(tiny_grid, {"report.primary": "arc_easy/acc", "axes.lr": [1e-3]})
    rows = {(0.0, 1e-3): np.array([0.0] * 9 + [1.0] * 31), (1.0, 1e-3): np.array([1.0] * 9 + [0.0] * 2 + [1.0] * 29)}
    bench.score(ARC, rows, scale=100.0)
    found = difference(bench.results, ARC, KD)
    assert found
    assert found.p == pytest.approx(0.0654297, rel=1e-4)  # twice the chance of 0, 1 or 2 of 11
    assert (
        verdict(bench.results)[1]
        == "This grid is too small to conclude anything from: 1 run an arm (at least 3), 40 items (at least 100)."
    )


def test_scores_that_are_no_right_and_wrong_are_not_tested_as_such(tiny_grid: TinyGrid) -> None:
    """Although all of nine items that differ do so by the same."""
    bench = Bench(tiny_grid, {"axes.lr": [1e-3]})
    bench.score(SUPPORT, {(0.0, 1e-3): np.full(60, 0.4), (1.0, 1e-3): np.array([3.6] * 9 + [0.4] * 51)})
    found = difference(bench.results, SUPPORT, KD)
    assert found
    assert found.estimate
    assert found.p == found.estimate.p
    assert found.smallest


def test_items_without_a_value_in_some_run_are_left_out_and_counted(tiny_grid: TinyGrid) -> None:
    bench, values = Bench(tiny_grid), noise(3)
    values[1.0, LRS[0]][:4] = np.nan
    values[0.0, LRS[1]][2:6] = np.nan
    bench.score(SUPPORT, values)
    found = difference(bench.results, SUPPORT, KD)
    assert found
    assert (found.items, found.left_out) == (114, 6)
    assert "; 6 items have no score in some run and are left out; " in verdict(bench.results)[1]


def test_answers_without_a_row_were_asked_all_the_same(tiny_grid: TinyGrid) -> None:
    """As those are of which a lens says nothing: an empty answer, a document that trained it."""
    bench, values = Bench(tiny_grid), noise(4)
    late = values.pop((1.0, LRS[2]))
    bench.score(SUPPORT, values)
    bench.score(SUPPORT, {(1.0, LRS[2]): late[3:]}, items=range(3, 120))
    bench.answer({key: ["words"] * 120 for key in noise(4)}, "words")
    found = difference(bench.results, SUPPORT, KD)
    assert found
    assert (found.items, found.left_out, found.why) == (117, 3, "")
    wanted = [values.get((1.0, lr), late) for lr in LRS]
    assert found.mean == pytest.approx(
        np.mean([ours[3:] - values[0.0, lr][3:] for ours, lr in zip(wanted, LRS, strict=True)])
    )


def test_runs_that_were_asked_other_items_are_not_paired(tiny_grid: TinyGrid) -> None:
    bench, values = Bench(tiny_grid), noise(4)
    late = values.pop((1.0, LRS[2]))
    bench.score(SUPPORT, values)
    bench.score(SUPPORT, {(1.0, LRS[2]): late}, items=range(5, 125))
    found = difference(bench.results, SUPPORT, KD)
    assert found
    assert (found.items, found.why) == (0, "10 of 125 items are not in all runs: the task's data differ between them")
    assert found.why in verdict(bench.results)[1]


def test_what_is_no_mean_over_items_is_compared_by_runs(tiny_grid: TinyGrid) -> None:
    bench = Bench(tiny_grid)
    bench.score(SUPPORT, noise(5), scale=3.0)
    found = difference(bench.results, SUPPORT, KD)
    assert found
    assert (found.items, found.why) == (0, "xsum_support is no mean over items")


def test_holm_counts_all_arms_and_headline_metrics(tiny_grid: TinyGrid) -> None:
    bench = Bench(tiny_grid)
    bench.score(SUPPORT, shifted(noise(6), 0.1))
    bench.score(ARC, {key: (row > 0).astype(float) for key, row in noise(7).items()}, scale=100.0)
    found = comparisons(bench.results)
    assert [(c.arm, c.metric) for c in found] == [(KD, SUPPORT), (KD, ARC)]
    alone = [c.difference.p for c in found]
    assert min(c.p or 0.0 for c in found) == pytest.approx(2 * min(p or 0.0 for p in alone))


def test_the_primary_metric_is_that_of_other_tasks_too_and_what_it_says_there_is_told(tiny_grid: TinyGrid) -> None:
    other = {"name": "cnn_dailymail", "source": "file:HERE/xsum.jsonl"}
    bench = Bench(tiny_grid, {"score.tasks": [TASKS[0], other, TASKS[1]]})
    rouge, support = MetricName("cnn_dailymail", "rougeL"), MetricName("cnn_dailymail", "support")
    for seed, (metric, by) in enumerate(((SUPPORT, 0.0), (rouge, 0.0), (support, 3.0), (ARC, 0.0))):
        bench.score(metric, shifted(noise(seed), by))
    assert [each.metric for each in comparisons(bench.results)] == [SUPPORT, support, ARC]
    change = difference(bench.results, support, KD)
    told = f"Elsewhere KD 1 scores {change} on cnn_support (better, 120 items), by intervals without a correction."
    assert told in verdict(bench.results)


def test_other_tasks_are_compared_under_the_primary_decoding(tiny_grid: TinyGrid) -> None:
    other = {"name": "cnn_dailymail", "source": "file:HERE/xsum.jsonl"}
    changes = {"score.tasks": [TASKS[0], other], "score.decoding": ["greedy", "dola"]}
    bench = Bench(tiny_grid, changes | {"report.primary": "xsum/support.dola"})
    names = [MetricName(task, "support", how) for how in ("greedy", "dola") for task in ("cnn_dailymail", "xsum")]
    for seed, metric in enumerate(names):
        bench.score(metric, noise(seed))
    assert [each.metric for each in comparisons(bench.results)] == [names[3], names[2]]


def test_every_comparison_has_a_row(tiny_grid: TinyGrid) -> None:
    bench = Bench(tiny_grid)
    bench.score(SUPPORT, shifted(noise(6), 9.0))
    bench.answer({key: ["w1 w2"] * 120 for key in noise(6)}, "w1 w2")
    bench.score(ARC, {key: (row > 0).astype(float) for key, row in noise(7).items()}, scale=3.0)
    (metric, arm, change, p, equal, size), of_means = compared_rows(bench.results)
    assert (metric, arm, size) == ("xsum_support", "KD 1", "120 x 3")
    assert change == equal == str(difference(bench.results, SUPPORT, KD))  # answers are alike: nothing is taken off
    assert p == "< 0.001"
    assert (of_means[0], of_means[4], of_means[5]) == ("arc_e", "", "means of 3")
    assert (
        f"| xsum_support | KD 1 | {change} | < 0.001 |"
        in (write_report(bench.results, bench.folder) / "report.md").read_text()
    )


@pytest.mark.parametrize(
    ("by", "said"),
    [
        (0.0, "KD 1 loses no more than the margin of 0.3"),
        (-1.0, "KD 1 loses more than the margin of 0.3"),
        (-0.3, "It is not shown that KD 1 loses no more than the margin of 0.3"),
    ],
)
def test_a_margin_is_held_against_the_end_of_the_interval(by: float, said: str, tiny_grid: TinyGrid) -> None:
    bench = Bench(tiny_grid, {"report.margin": {"xsum/support": 0.3}})
    bench.score(SUPPORT, shifted(noise(8), by))
    assert verdict(bench.results)[-1].startswith(f"{said} on xsum_support (")


def test_a_margin_of_a_task_is_one_of_accuracy(tiny_grid: TinyGrid) -> None:
    bench = Bench(tiny_grid, {"report.margin": {"arc_easy": 0.02}})
    bench.score(SUPPORT, noise(8))
    bench.score(ARC, {key: np.ones(120) - (np.arange(120) < 30) * (key[0] > 0) for key in noise(8)}, scale=100.0)
    assert verdict(bench.results)[-1].startswith("KD 1 loses more than the margin of 2 on arc_e (-25.00 [")


def test_metrics_of_which_the_same_is_told_share_a_sentence(tiny_grid: TinyGrid) -> None:
    bench = Bench(tiny_grid, {"report.margin": {"xsum/support": 2, "arc_easy": 0.02, "xsum/rougeL": 0.1}})
    bench.score(SUPPORT, noise(8))
    bench.score(ARC, noise(9))
    bench.score(MetricName("xsum", "rougeL"), shifted(noise(10), -5.0))
    held, lost = verdict(bench.results)[-2:]
    assert held.startswith("KD 1 loses no more than the margin of 2 on xsum_support (")
    assert "), arc_e (" in held
    assert lost.startswith("KD 1 loses more than the margin of 0.1 on xsum_rougeL (-4.9")


def test_a_gain_that_comes_of_copying_goes_away_with_it(tiny_grid: TinyGrid) -> None:
    """Scores follow the share of copied words: KD answers with the text's own words, SFT with others."""
    source = " ".join(f"w{i}" for i in range(40))
    rng = np.random.default_rng(14)
    bench, values, answers = Bench(tiny_grid), {}, {}
    for alpha in (0.0, 1.0):
        for lr in LRS:
            copied = rng.integers(2, 8, 120) + (2 if alpha else 0)
            answers[alpha, lr] = [" ".join([f"w{k}" for k in range(n)] + ["new"] * (10 - n)) for n in copied]
            values[alpha, lr] = 10.0 * copied + rng.normal(0, 4, 120)
    bench.score(SUPPORT, values)
    bench.answer(answers, source)
    text = verdict(bench.results)
    assert "(better)" in text[0]
    [told] = [sentence for sentence in text if "copied" in sentence]
    assert told.startswith("Its answers have 10.0 words, of which ")
    assert told.endswith("so that the difference goes away with it.")


def test_a_gain_beside_equal_answers_stays(tiny_grid: TinyGrid) -> None:
    bench, rng = Bench(tiny_grid), np.random.default_rng(10)
    bench.score(SUPPORT, shifted(noise(11), 1.0))
    texts = {key: [" ".join(["w1"] * n) for n in rng.integers(2, 9, 120)] for key in noise(11)}
    bench.answer(texts, "w1 w2")
    [told] = [sentence for sentence in verdict(bench.results) if "copied" in sentence]
    assert "goes away" not in told
    assert "at equal length and copying the difference is +" in told


def test_the_interval_of_the_best_holds_for_all_arms(tiny_grid: TinyGrid) -> None:
    bench, values = Bench(tiny_grid, alphas=(0.0, 1.0, 10.0)), noise(12)
    values |= {(10.0, lr): row + 0.4 for (alpha, lr), row in noise(13).items() if alpha}
    bench.score(SUPPORT, values)
    alone, both = (difference(bench.results, SUPPORT, Arm("gold", 10.0), among=n) for n in (1, 2))
    assert alone
    assert both
    assert alone.interval
    assert both.interval
    assert both.interval[0] < alone.interval[0] < alone.interval[1] < both.interval[1]
    assert f"{both}" in verdict(bench.results)[0]
