"""ARC, the questions that simple methods fail (lm-eval's own task)."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt

VERSION = 3
COLUMNS = ("question", "choices", "answerKey")
ANSWER = ("answerKey", "choices.label")
KIND = "choices"
CONFIG = "arc/arc_challenge.yaml"
SHORT = {"acc": "arc_c", "acc_norm": "arc_c_norm"}


def arc_challenge(
    *,
    source: str = "hf:allenai/ai2_arc#config=ARC-Challenge&split=test",
    limit: PositiveInt | None = None,
    shots: NonNegativeInt = 0,
    shots_source: str | None = None,
    chat_template: bool = False,
) -> None:
    """`source`: the test set; `limit`: only so many questions; `shots`: solved examples in the prompt, from `shots_source` or as
    lm-eval takes them; `chat_template`: the tokenizer's.
    """
