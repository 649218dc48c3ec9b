"""Calibration and the confidence in wrong answers, as the report shows them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from kdray.artifacts.scores import Score, write_scores
from kdray.report.confidence import curves_of, density, draw_confidence, styles_of
from kdray.report.page.drawing import GREY
from kdray.report.page.evidence import Evidence
from kdray.report.page.tables import compared_on
from kdray.report.table import calibration_of, metrics_of
from kdray.report.write import write_report
from kdray.spec.metric_names import MetricName
from kdray.store import Key, Store
from tests.report.test_report import make_results

TASKS = {"score.tasks": ["heldout_loss", "heldout_answers", "commonsense_qa", "lm_eval:mmlu"]}


def answer(gold: int | None, *loglikelihoods: float) -> dict:
    chosen = None if gold is None else max(range(len(loglikelihoods)), key=loglikelihoods.__getitem__)
    return {"gold": gold, "chosen": chosen, "loglikelihoods": list(loglikelihoods)}


@pytest.mark.slow
def test_the_density_is_over_wrong_answers_alone_and_the_table_of_scores_has_no_calibration(tiny_grid, tmp_path):
    results = make_results(tiny_grid, TASKS)
    rows = [answer(0, -1.0, -2.0), answer(1, -0.5, -3.0), answer(0, -4.0, -0.25), answer(1, -2.5, -9.0), answer(None)]
    attempt = Store(tmp_path / "kept").begin(Key("measure", "csqa", "0" * 12), {})
    write_scores(attempt.path, {}, rows)
    artifact = attempt.seal()
    for checkpoint in results.checkpoints:
        checkpoint.measured["commonsense_qa"] = artifact
        checkpoint.scores[MetricName("commonsense_qa", "ece")] = Score(12.0, 1.0, 4)
    curves, choices = curves_of(results, results.plan.grid.score.tasks[2])
    assert (curves["teacher"].wrong, curves["teacher"].asked, choices) == ([0.5, 0.25, 2.5], 4, 2)
    assert curves["SFT"].wrong == [0.5, 0.25, 2.5] * 5  # of the last checkpoint of each of its runs
    assert curves["SFT"].asked == 20
    styles = styles_of(curves, results)
    assert [label for label, style in styles.items() if style["color"] == GREY] == ["untrained student", "teacher"]
    assert len({(style["color"], str(style["ls"])) for style in styles.values()}) == 4
    assert (metrics_of(results), calibration_of(results)) == (["held_rougeL"], ["csqa_ece"])
    text = (write_report(results, tmp_path / "report") / "report.md").read_text()
    assert "## Calibration" in text
    assert "12.00 ± 0.00" in text
    assert (tmp_path / "report" / "confidence.png").stat().st_size > 1000


def test_names_of_metrics_do_not_collide():
    assert MetricName("arc_easy", "ece") == "arc_e_ece"
    assert MetricName("lm_eval:mmlu", "acc") == "mmlu_acc"
    assert MetricName("commonsense_qa", "wrong_nll") == "csqa_nll"
    assert MetricName("arc_easy", "brier").lower_is_better
    assert not MetricName(
        "commonsense_qa", "wrong_nll"
    ).lower_is_better  # a model that is less sure of wrong answers is the better one


def test_a_curve_of_sure_answers_has_its_whole_area_where_answers_can_lie():
    """Most of them at 0, as the surest models have: a plain kernel would leave half of these out."""
    values, places = [0.0, 0.01, 0.02, 0.05, 0.1, 3.0], np.linspace(0, 30, 30001)
    assert np.trapezoid(density(values, places), places) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_models_that_see_examples_say_so(tiny_grid, tmp_path):
    """The teacher of the tiny grid is tuned, and asked as the points are."""
    results = make_results(
        tiny_grid, {"score.tasks": ["heldout_answers", {"name": "commonsense_qa", "untrained_shots": 5}]}
    )
    attempt = Store(tmp_path / "kept").begin(Key("measure", "csqa", "0" * 12), {})
    write_scores(attempt.path, {}, [answer(1, -0.1 * i, -3.0) for i in range(1, 5)])
    artifact = attempt.seal()
    for checkpoint in results.checkpoints:
        checkpoint.measured["commonsense_qa"] = artifact
    axis = Figure().subplots()
    draw_confidence(axis, results, results.plan.grid.score.tasks[1])
    assert axis.get_xlim()[1] > math.log(2), "where a blind guess lies is shown, though all answers are surer"
    assert list(curves_of(results, results.plan.grid.score.tasks[1])[0]) == [
        "untrained student, 5 shots",
        "teacher",
        "SFT",
        "KD 1",
    ]
    text = (write_report(results, tmp_path / "report") / "report.md").read_text()
    assert "- commonsense_qa: models that were not trained here see 5 solved examples, the others 0.\n" in text


def test_wrong_answers_alone_are_no_number_of_items(tiny_grid):
    results = make_results(tiny_grid, TASKS)
    for place, checkpoint in enumerate(results.checkpoints):
        checkpoint.scores[MetricName("commonsense_qa", "acc")] = Score(40.0, 1.0, 200)
        checkpoint.scores[MetricName("commonsense_qa", "wrong_nll")] = Score(1.0, 0.1, 120 + place)
    assert "commonsense_qa (200 items)" in compared_on(Evidence(results))
