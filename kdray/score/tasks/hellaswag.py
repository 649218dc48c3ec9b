"""HellaSwag (lm-eval's own task)."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt

from kdray.spec import declare

DECLARED = declare.ChoiceTask(
    version=3,
    columns=("ctx_a", "ctx_b", "activity_label", "endings", "label"),
    answer=("label", "endings"),
    config="hellaswag/hellaswag.yaml",
    short={"acc": "hswag", "acc_norm": "hswag_norm"},
    usual=declare.Usual(rows=10042, tokens=100, choices=4, choice=30),
)


def hellaswag(
    *,
    source: str = "hf:Rowan/hellaswag#split=validation",
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
