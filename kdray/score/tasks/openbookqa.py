"""OpenBookQA (lm-eval's own task)."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt

VERSION = 1
COLUMNS = ("question_stem", "choices", "answerKey")
KIND = "choices"
CONFIG = "openbookqa/openbookqa.yaml"
SHORT = {"acc": "obqa", "acc_norm": "obqa_norm"}


def openbookqa(
    *,
    source: str = "hf:allenai/openbookqa#config=main&split=test",
    limit: PositiveInt | None = None,
    shots: NonNegativeInt = 0,
) -> None:
    """`source`: the test set; `limit`: only so many questions; `shots`: solved examples in the prompt."""
