"""CommonsenseQA with the letter of the answer as its first token (lm-eval's own task), and how sure a model is of wrong ones.

`wrong_nll` is the negative log-likelihood of the letter that is taken, over wrongly answered questions alone.
"""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt

from kdray.spec import declare

DECLARED = declare.ChoiceTask(
    version=2,
    columns=("question", "choices", "answerKey"),
    answer=("answerKey", "choices.label"),
    config="commonsense_qa/default.yaml",
    short={"acc": "csqa", "wrong_nll": "csqa_nll"},
    confidence=True,
)


def commonsense_qa(
    *,
    source: str = "hf:tau/commonsense_qa#split=validation",
    limit: PositiveInt | None = None,
    shots: NonNegativeInt = 0,
    shots_source: str | None = None,
    chat_template: bool = False,
) -> None:
    """`source`: the test set; `limit`: only so many questions; `shots`: solved examples in the prompt, from `shots_source` or as
    lm-eval takes them; `chat_template`: the tokenizer's.
    """
