"""OpenBookQA (lm-eval's own task)."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt

VERSION = 3
COLUMNS = ("question_stem", "choices", "answerKey")
ANSWER = ("answerKey", "choices.label")
KIND = "choices"
CONFIG = "openbookqa/openbookqa.yaml"
SHORT = {"acc": "obqa", "acc_norm": "obqa_norm"}


def openbookqa(
    *,
    source: str = "hf:allenai/openbookqa#config=main&split=test",
    limit: PositiveInt | None = None,
    shots: NonNegativeInt = 0,
    shots_source: str | None = None,
    chat_template: bool = False,
) -> None:
    """`source`: the test set; `limit`: only so many questions; `shots`: solved examples in the prompt, from `shots_source` or as
    lm-eval takes them; `chat_template`: the tokenizer's.
    """
