"""A score has one name from the stage that measures it to tables and MLflow."""

from __future__ import annotations

import copy

import pytest

from kdray.spec.metric_names import MetricName


@pytest.mark.parametrize(
    ("task", "metric", "decoding", "shown", "written"),
    [
        ("xsum", "rougeL", "", "xsum_rougeL", "xsum/rougeL"),
        ("xsum", "rougeL", "greedy", "xsum_rougeL", "xsum/rougeL"),
        ("xsum", "rougeL", "dola", "xsum_rougeL.dola", "xsum/rougeL.dola"),
        ("xsum", "fr", "sampled-temperature-0.7", "xsum_fr.sampled-temperature-0.7", "xsum/fr.sampled-temperature-0.7"),
        ("heldout_loss", "kl", "", "held_kl", "heldout_loss/kl"),
        ("arc_easy", "ece", "", "arc_e_ece", "arc_easy/ece"),
        ("lm_eval:mmlu", "acc", "", "mmlu_acc", "lm_eval:mmlu/acc"),
    ],
)
def test_it_is_put_together_and_read_back_in_one_place(
    task: str, metric: str, decoding: str, shown: str, written: str
) -> None:
    name = MetricName(task, metric, decoding)
    assert (name, name.written) == (shown, written)
    assert MetricName.parse(written) == name
    assert {name: 1}[shown] == 1  # a key like the text itself


def test_it_keeps_its_parts_where_it_is_copied() -> None:
    name = MetricName("xsum", "rougeL", "dola")
    again = copy.deepcopy(name)
    assert (again, again.task, again.metric, again.decoding) == (name, "xsum", "rougeL", "dola")
