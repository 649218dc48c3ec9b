"""A metric as a detector of hallucinated spans."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kdray.lens.annotations import Annotated
from kdray.score.answers import Answer
from kdray.score.standalone import metric_auroc, predefined_texts

SNOW = Annotated("0", "It rained.", "It rained. Snow fell. It was wet.", ((11, 15), (16, 20)))


def support(answers: Sequence[Answer]) -> list[dict[str, object]]:
    """Believes what has no snow in it, provided that it is asked about the right document."""
    scored = [float("now" not in answer.text) if answer.source == "It rained." else 0.5 for answer in answers]
    return [
        {"error": "no"} if "?" in answer.text else {"support": score}
        for answer, score in zip(answers, scored, strict=True)
    ]


def test_spans_are_what_is_wrong_and_the_text_on_both_sides() -> None:
    assert predefined_texts(SNOW) == [("It rained.", 1), ("Snow fell", 0), (". It was wet.", 1)]
    overlapping = Annotated("0", "", "Snow fell.", ((5, 9), (0, 4), (0, 7)))
    assert predefined_texts(overlapping) == [("", 1), ("Snow fell", 0), (".", 1)]
    assert predefined_texts(Annotated("0", "", " Rain. ")) == [("Rain.", 1)]


def test_a_metric_that_scores_facts_higher_has_an_auroc_of_100() -> None:
    rows = [SNOW, Annotated("1", "It rained.", "Rain.")]
    assert metric_auroc(rows, support, "support") == {"AUROC": 100.0, "spans": 4}
    wrong_way = Annotated("2", "It rained.", "Snow. Rain.", ((6, 11),))  # believed, and what is factual is not
    assert (
        metric_auroc([*rows, wrong_way], support, "support")["AUROC"] == 62.5
    )  # of 8 pairs 3 are right and 4 undecided


def test_what_is_not_known_or_not_scored_does_not_count() -> None:
    unfound = Annotated("3", "It rained.", "Snow fell.", unfound=("hail",))
    failed = Annotated("4", "It rained.", "Snow?")
    assert metric_auroc([SNOW, unfound, failed], support, "support") == {"AUROC": 100.0, "spans": 3}
    assert math.isnan(metric_auroc([unfound], support, "support")["AUROC"])
