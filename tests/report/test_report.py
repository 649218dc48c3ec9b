"""The report's numbers against scipy, and its words against what the numbers allow."""

from __future__ import annotations

import csv
import io
import itertools
import statistics

import pytest
from rich.console import Console
from scipy import stats

from kdray.artifacts.scores import Score
from kdray.plan import make_plan
from kdray.report.arms import Arm
from kdray.report.page.panels import running_mean
from kdray.report.results import Checkpoint, Results
from kdray.report.statistics import Spread, difference
from kdray.report.table import Row, headings, rows_of
from kdray.report.verdict import verdict
from kdray.report.write import print_table, write_report
from kdray.spec import load_grid
from kdray.spec.metric_names import MetricName
from kdray.spec.points import Point
from kdray.store import Outer

RL = MetricName("heldout_answers", "rougeL")
LRS = [1e-3, 3e-4, 1e-4, 3e-5, 1e-5]
VALUES = {0.0: [20.0, 21.0, 19.0, 22.0, 18.0], 1.0: [23.0, 23.5, 22.0, 24.5, 21.5]}


def make_results(tiny_grid, changes=None, values=VALUES, n=200, metric="heldout_answers/rougeL"):
    grid = load_grid(
        tiny_grid(
            {"axes.lr": LRS, "axes.alpha": list(values), "report.primary": "heldout_answers/rougeL"} | (changes or {})
        )
    )
    plan = make_plan(grid, Outer(tiny_grid.folder / "store"))
    references = {"student": 10.0, "teacher": 30.0}
    checkpoints = [
        Checkpoint(role, None, None, {MetricName.parse(metric): Score(value, 1.0, n)})
        for role, value in references.items()
    ]
    curves = {}
    for alpha, row in values.items():
        for lr, value in zip(LRS, row, strict=True):
            point = Point(alpha=alpha, lr=lr, batch=2, seed=0)
            checkpoints.append(Checkpoint(point, 2.0, 4, {MetricName.parse(metric): Score(value - 5, 1.0, n)}))
            checkpoints.append(Checkpoint(point, 4.0, 8, {MetricName.parse(metric): Score(value, 1.0, n)}))
            losses = [(2, 2.0, 1.0), (4, 1.5, 1.2)]
            curves[point] = [
                {"step": i, "examples": 2 * i, "tokens": 5, "ce": ce, "heldout_ce": heldout}
                for i, ce, heldout in losses
            ]
    return Results(plan, checkpoints, curves)


def test_rows_are_sft_first_then_alphas_then_references_with_mean_and_sd(tiny_grid):
    rows = rows_of(make_results(tiny_grid))
    assert [row.label for row in rows] == ["SFT", "KD 1", "untrained student", "teacher"]
    assert rows[0].cells["held_rougeL"] == f"{statistics.fmean(VALUES[0.0]):.2f} ± {statistics.stdev(VALUES[0.0]):.2f}"
    assert rows[1].runs == "5/5"
    assert rows[3].cells["held_rougeL"] == "30.00"


def test_a_point_without_its_last_checkpoint_is_left_out_and_counted_as_missing(tiny_grid):
    results = make_results(tiny_grid)
    results.checkpoints[-1].scores.clear()
    row = rows_of(results)[1]
    assert row.runs == "4/5"
    assert row.cells["held_rougeL"].startswith(f"{statistics.fmean(VALUES[1.0][:-1]):.2f}")


def test_best_heldout_takes_the_checkpoint_with_the_least_heldout_loss(tiny_grid):
    results = make_results(tiny_grid, {"report.checkpoint": "best_heldout"})
    assert rows_of(results)[0].cells["held_rougeL"].startswith("15.00")


@pytest.mark.parametrize("missing", ["score", "loss"])
def test_best_heldout_waits_for_the_whole_of_a_point(tiny_grid, missing):
    """A point that is half-way is not compared by what it has so far."""
    results = make_results(tiny_grid, {"report.checkpoint": "best_heldout"})
    point = results.checkpoints[-1].subject
    if missing == "score":
        results.checkpoints[-2].scores.clear()  # the best one's
    else:
        results.curves[point].pop()
    assert results.final(point) is None
    assert rows_of(results)[1].runs == "4/5"


def test_best_answers_takes_the_checkpoint_with_the_best_answers_to_heldout_rows(tiny_grid):
    """Of both ways: a point whose answers have got worse, one whose have got better; and of equals the later."""
    results = make_results(tiny_grid, {"report.checkpoint": "best_answers"})
    points = [point.point for point in results.plan.points]
    for point, (first, last) in zip(points, [(30.0, 20.0), (20.0, 30.0), (25.0, 25.0)], strict=False):
        for checkpoint, value in zip(results.of(point), (first, last), strict=True):
            checkpoint.scores[MetricName.parse("heldout_answers/rougeL")] = Score(value, 1.0, 9)
            checkpoint.scores[MetricName.parse("xsum/rougeL")] = Score(50.0 - value, 1.0, 9)
    assert [results.final(point).position for point in points[:3]] == [2.0, 4.0, 4.0]
    assert [results.final(point).scores["xsum_rougeL"].value for point in points[:3]] == [20.0, 20.0, 25.0]
    assert results.final("student").scores["held_rougeL"].value == 10.0


@pytest.mark.parametrize("missing", [0, 1])
def test_best_answers_waits_for_all_checkpoints_of_a_point(tiny_grid, missing):
    results = make_results(tiny_grid, {"report.checkpoint": "best_answers"})
    point = results.checkpoints[-1].subject
    checkpoint = results.of(point)[missing]
    checkpoint.scores = {MetricName.parse("xsum/rougeL"): Score(1.0, 1.0, 9)}  # another task's scores are no choice
    assert results.final(point) is None
    assert rows_of(results)[1].runs == "4/5"


def test_a_rounded_zero_has_no_sign():
    assert str(Spread(-1e-9, None, 1)) == "0.00"


def test_without_rows_the_difference_is_scipys_over_runs(tiny_grid):
    found = difference(make_results(tiny_grid), RL, Arm("gold", 1.0))
    test = stats.ttest_rel(VALUES[1.0], VALUES[0.0])
    interval = test.confidence_interval(0.95)
    assert (found.pairs, found.items, found.why) == (5, 0, "there are no rows behind the scores")
    assert found.mean == pytest.approx(statistics.fmean(VALUES[1.0]) - statistics.fmean(VALUES[0.0]))
    assert found.interval == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(test.pvalue)
    assert found.significant
    wider = difference(make_results(tiny_grid), RL, Arm("gold", 1.0), among=4)
    interval = test.confidence_interval(1 - 0.05 / 4)
    assert wider.interval == pytest.approx((interval.low, interval.high))


def test_the_verdict_answers_first_and_then_says_what_it_rests_on(tiny_grid):
    answer, rests = verdict(make_results(tiny_grid))
    interval = stats.ttest_rel(VALUES[1.0], VALUES[0.0]).confidence_interval(0.95)
    assert (
        answer == f"On held_rougeL, KD 1 scores +2.90 [{interval.low:+.2f}, {interval.high:+.2f}] against SFT (better)."
    )
    assert (
        rests == "That is over 5 pairs of runs (one seed, so that seeds are no part of the interval), not item by "
        "item: there are no rows behind the scores; p < 0.001."
    )


def test_the_interval_of_the_best_of_two_arms_is_that_for_both(tiny_grid):
    results = make_results(tiny_grid, values={**VALUES, 0.1: [20.5, 21.0, 20.0, 22.5, 18.5]})
    interval = stats.ttest_rel(VALUES[1.0], VALUES[0.0]).confidence_interval(1 - 0.05 / 2)
    change = f"+2.90 [{interval.low:+.2f}, {interval.high:+.2f}]"
    answer, rests = verdict(results)
    assert answer == f"On held_rougeL, KD 1 scores {change} against SFT (better), the best of 2 arms."
    assert "the interval holds with 95% for all 2 arms at once, so the choice of the best is in it" in rests
    assert "after Holm's correction for all 2 comparisons" in rests


def test_a_difference_within_the_noise_is_said_to_be_none(tiny_grid):
    noisy = {0.0: VALUES[0.0], 1.0: [15.0, 27.0, 19.0, 21.0, 20.0]}
    assert verdict(make_results(tiny_grid, values=noisy))[0].endswith("against SFT (no difference shown).")


@pytest.mark.slow
def test_a_run_whose_score_is_no_number_is_left_out_by_name(tiny_grid):
    results = make_results(tiny_grid)
    for point, value in ((Point(1.0, LRS[0], 2, 0), float("nan")), (Point(0.0, LRS[1], 2, 0), float("inf"))):
        results.final(point).scores[RL] = Score(value, 0.0, 200)
    assert difference(results, RL, Arm("gold", 1.0)).pairs == 3
    lost = f"{Point(0.0, LRS[1], 2, 0).slug}, {Point(1.0, LRS[0], 2, 0).slug}"
    assert verdict(results)[-1] == f"held_rougeL is no number, and left out, of {lost}."
    print_table(results, Console(file=io.StringIO(), width=120))
    write_report(results, tiny_grid.folder / "report")


def test_an_arm_without_a_score_is_named(tiny_grid):
    results = make_results(tiny_grid, values={**VALUES, 10.0: [0.0] * 5})
    results.checkpoints[:] = [c for c in results.checkpoints if isinstance(c.subject, str) or c.subject.alpha != 10.0]
    assert verdict(results)[-1] == "No run of KD 10 has a score (not trained yet, failed or diverged)."


def test_points_that_were_stopped_early_are_missing_and_the_rest_is_told_to_be_chosen(tiny_grid):
    results = make_results(tiny_grid)
    early = {Point(1.0, lr, 2, 0): "held-out loss 3.2" for lr in LRS[:2]} | {Point(0.0, LRS[2], 2, 0): "behind"}
    kept = [c for c in results.checkpoints if c.subject not in early or c.position == 2.0]
    results = Results(results.plan, kept, results.curves, early=early)
    assert difference(results, RL, Arm("gold", 1.0)).pairs == 2, "cells in which both were trained to the end"
    sft, kd = (row for row in rows_of(results) if not row.reference)
    assert (sft.runs, kd.runs) == ("4/5", "3/5")
    assert str(kd.cells[RL]) == str(Spread(statistics.mean(VALUES[1.0][2:]), statistics.stdev(VALUES[1.0][2:]), 3))
    assert verdict(results)[-1].startswith("3 of 10 points were stopped early, by their held-out loss (search).")
    assert "The runs that are left were chosen" in verdict(results)[-1]
    assert not any("stopped early" in sentence for sentence in verdict(make_results(tiny_grid)))


def test_less_loss_is_better(tiny_grid):
    loss = {0.0: [2.0, 2.1, 2.2, 2.3, 2.4], 1.0: [1.9, 2.0, 2.05, 2.2, 2.3]}
    results = make_results(tiny_grid, {"report.primary": "heldout_loss/ce"}, values=loss, metric="heldout_loss/ce")
    assert "(better)" in verdict(results)[0]


def test_a_grid_of_few_runs_says_how_little_that_is(tiny_grid):
    results = make_results(tiny_grid)
    results.checkpoints[:] = [c for c in results.checkpoints if isinstance(c.subject, str) or c.subject.lr in LRS[:2]]
    assert verdict(results)[1] == "This grid is too small to conclude anything from: 2 runs an arm (at least 3)."


def test_points_that_ran_differently_are_pointed_out(tiny_grid):
    results = make_results(tiny_grid)
    for i, point in enumerate(results.curves):
        results.runtimes[point] = {
            "workers": 1 + i % 2,
            "threads": 1,
            "device": "cpu",
            "micro_batch": None,
            "engine": "ddp",
            "torch": "2",
        }
    assert verdict(results)[2:] == ["Note: the points ran with different workers: 1, 2."]


def test_a_grid_without_scores_still_prints(tiny_grid):
    results = make_results(tiny_grid)
    for checkpoint in results.checkpoints:
        checkpoint.scores.clear()
    results.curves.clear()
    text = io.StringIO()
    print_table(results, Console(file=text, width=120))
    assert "0/5" in text.getvalue()
    assert "nothing to compare yet" in text.getvalue()
    folder = write_report(results, tiny_grid.folder / "report")
    assert not (folder / "scores.png").exists()


@pytest.mark.parametrize(("width", "tables"), [(40, 3), (56, 2), (200, 1)])
def test_a_table_wider_than_the_console_is_broken_between_metrics(tiny_grid, width, tables):
    results = labelled_results(tiny_grid)
    for checkpoint in results.checkpoints:
        checkpoint.scores |= {MetricName("heldout_loss", name): Score(1.5, 0.1, 200) for name in ("ce", "kl")}
    text = io.StringIO()
    print_table(results, Console(file=text, width=width))
    lines = text.getvalue().splitlines()
    headers = [line.split()[1:] for line in lines if line.split()[:1] == ["runs"]]
    assert [*itertools.chain(*headers)] == ["held_rougeL", "held_ce", "held_kl"]
    assert len(headers) == tables
    assert sum("SFT + SeqKD + KD 1 " in line for line in lines) == tables
    assert text.getvalue().count("1.50 ± 0.00") == 2 * 6


def test_a_column_beside_those_of_metrics_is_on_the_terminal_and_in_the_report(tiny_grid, monkeypatch):
    """Both are made of `headings` and `Row.texts`, and of nothing else."""
    results = make_results(tiny_grid)
    for checkpoint in results.checkpoints:
        checkpoint.scores.clear()  # so that nothing is drawn, which takes a second
    results.curves.clear()
    texts = Row.texts.fget
    monkeypatch.setattr("kdray.report.write.headings", lambda metrics: [*headings(metrics), "mine"])
    monkeypatch.setattr(Row, "texts", property(lambda row: [*texts(row), "yes"]))
    shown = io.StringIO()
    print_table(results, Console(file=shown, width=120))
    assert [line.split() for line in shown.getvalue().splitlines()[2:4]] == [["runs", "mine"], ["SFT", "0/5", "yes"]]
    text = (write_report(results, tiny_grid.folder / "report") / "report.md").read_text()
    assert "|  | runs | mine |\n| --- | --- | --- |\n| SFT | 0/5 | yes |" in text


def test_training_losses_are_drawn_as_running_means_over_their_tokens():
    assert running_mean([1.0, 3.0], [1, 1]).tolist() == [1.0, 3.0]  # too few to be smoothed
    values, weights = [1.0, 4.0] * 15, [2, 1] * 15  # windows of three: 1 4 1 and 4 1 4
    inner = running_mean(values, weights)[1:-1]
    assert inner.tolist() == pytest.approx([8 / 5, 10 / 4] * 14)
    assert running_mean(values, weights)[0] == pytest.approx(6 / 3)


@pytest.mark.slow
def test_the_report_folder_holds_text_plots_and_every_score(tiny_grid):
    results = make_results(tiny_grid)
    folder = write_report(results, tiny_grid.folder / "report")
    text = (folder / "report.md").read_text()
    assert "| KD 1 | 5/5 | 22.90" in text
    assert "![scores against alpha](scores.png)" in text
    assert (folder / "scores.png").stat().st_size > 5000
    assert (folder / "curves.png").stat().st_size > 5000
    rows = list(csv.DictReader((folder / "scores.csv").open()))
    assert len(rows) == 2 + 2 * 10
    assert {row["alpha"] for row in rows} == {"", "0.0", "1.0"}
    assert sum(
        float(row["value"]) for row in rows if row["alpha"] == "1.0" and row["examples"] == "8"
    ) == pytest.approx(sum(VALUES[1.0]))


LABELLED = {
    ("gold", 0.0): [20.0, 21.0, 19.0, 22.0, 18.0],
    ("gold", 1.0): [23.0, 23.5, 22.0, 24.5, 21.5],
    ("teacher", 0.0): [24.0, 25.5, 23.0, 26.0, 22.5],
    ("teacher", 1.0): [21.0, 21.0, 21.0, 21.0, 21.0],
    ("both", 0.0): [20.0, 20.0, 20.0, 20.0, 20.0],
    ("both", 1.0): [22.0, 22.0, 22.0, 22.0, 22.0],
}


def labelled_results(tiny_grid, arms=LABELLED):
    results = make_results(tiny_grid, {"axes.labels": list(dict.fromkeys(labels for labels, _ in arms))})
    references = [c for c in results.checkpoints if isinstance(c.subject, str)]
    points = [
        Checkpoint(
            Point(alpha, lr, 2, 0, labels), 4.0, 8, {MetricName("heldout_answers", "rougeL"): Score(value, 1.0, 200)}
        )
        for (labels, alpha), row in arms.items()
        for lr, value in zip(LRS, row, strict=True)
    ]
    curve = [{"step": 4, "examples": 8, "ce": 1.5, "tokens": 5, "heldout_ce": 1.2}]
    return Results(results.plan, [*references, *points], {c.subject: curve for c in points})


def test_labels_are_rows_of_their_own_and_sft_is_that_on_the_original_responses(tiny_grid):
    rows = rows_of(labelled_results(tiny_grid))
    names = [
        "SFT",
        "KD 1",
        "SeqKD",
        "SeqKD + KD 1",
        "SFT + SeqKD",
        "SFT + SeqKD + KD 1",
        "untrained student",
        "teacher",
    ]
    assert [row.label for row in rows] == names
    means = [row.cells["held_rougeL"].split(" ")[0] for row in rows]
    assert means == ["20.00", "22.90", "24.20", "21.00", "20.00", "22.00", "10.00", "30.00"]
    assert {row.runs for row in rows[:6]} == {"5/5"}


def test_the_verdict_compares_every_row_with_sft_on_the_original_responses(tiny_grid):
    test = stats.ttest_rel(LABELLED["teacher", 0.0], LABELLED["gold", 0.0]).confidence_interval(1 - 0.05 / 5)
    change = f"+4.20 [{test.low:+.2f}, {test.high:+.2f}]"
    assert (
        verdict(labelled_results(tiny_grid))[0]
        == f"On held_rougeL, SeqKD scores {change} against SFT (better), the best of 5 arms."
    )


def test_answers_alone_have_no_baseline(tiny_grid):
    sentences = verdict(labelled_results(tiny_grid, {arm: row for arm, row in LABELLED.items() if arm[0] == "teacher"}))
    assert sentences == [
        "No verdict: there is nothing to compare yet: it needs scored points with alpha = 0 on the original responses"
        " and others, at the same lr, batch and seed."
    ]


@pytest.mark.slow
def test_labels_are_in_the_report_folder(tiny_grid):
    folder = write_report(labelled_results(tiny_grid), tiny_grid.folder / "report")
    text = (folder / "report.md").read_text()
    assert "| SeqKD | 5/5 | 24.20" in text
    assert "| lr0.001-b2-a0-s0-teacher | 8 |" in text
    rows = list(csv.DictReader((folder / "scores.csv").open()))
    assert [row["labels"] for row in rows] == ["", "", *(labels for labels, _ in LABELLED for _ in LRS)]
    assert (folder / "scores.png").stat().st_size > 5000
    assert (folder / "curves.png").stat().st_size > 5000
