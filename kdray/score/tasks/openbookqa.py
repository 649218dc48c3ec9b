"""OpenBookQA (lm-eval's own task)."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt

from kdray.spec import declare

DECLARED = declare.ChoiceTask(
    version=3,
    columns=("question_stem", "choices", "answerKey"),
    answer=("answerKey", "choices.label"),
    config="openbookqa/openbookqa.yaml",
    short={"acc": "obqa", "acc_norm": "obqa_norm"},
    usual=declare.Usual(rows=500, tokens=15, choices=4, choice=3),
)


def openbookqa(
    *,
    source: str = "hf:allenai/openbookqa#config=main&split=test",
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
