"""ARC, the easy questions (lm-eval's own task)."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt

from kdray.spec import declare

DECLARED = declare.ChoiceTask(
    version=3,
    columns=("question", "choices", "answerKey"),
    answer=("answerKey", "choices.label"),
    config="arc/arc_easy.yaml",
    short={"acc": "arc_e", "acc_norm": "arc_e_norm"},
    usual=declare.Usual(rows=2376, tokens=32, choices=4, choice=5),
)


def arc_easy(
    *,
    source: str = "hf:allenai/ai2_arc#config=ARC-Easy&split=test",
    limit: PositiveInt | None = None,
    shots: NonNegativeInt = 0,
    untrained_shots: NonNegativeInt | None = None,
    shots_source: str | None = None,
    chat_template: bool = False,
) -> None:
    """`source`: the test set; `limit`: only so many questions; `shots`: solved examples in the prompt, from
    `shots_source` or as lm-eval takes them; `untrained_shots`: those of models that were not trained here;
    `chat_template`: the tokenizer's.
    """
