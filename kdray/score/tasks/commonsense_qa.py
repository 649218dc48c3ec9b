"""CommonsenseQA with the letter of the answer as its first token (lm-eval's own task), and how sure a model is of wrong
ones.

`wrong_nll` is the negative log-likelihood of the letter that is taken, over wrongly answered questions alone. The
recipe `commonsense_qa` with the template `plain` trains on these very prompts.
"""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt

from kdray.spec import declare

DECLARED = declare.ChoiceTask(
    version=2,
    later=("either_case",),
    columns=("question", "choices", "answerKey"),
    answer=("answerKey", "choices.label"),
    config="commonsense_qa/default.yaml",
    short={"acc": "csqa", "wrong_nll": "csqa_nll"},
    confidence=True,
    usual=declare.Usual(rows=1221, tokens=45, choices=5, choice=2),
)


def commonsense_qa(
    *,
    source: str = "hf:tau/commonsense_qa#split=validation",
    limit: PositiveInt | None = None,
    shots: NonNegativeInt = 0,
    untrained_shots: NonNegativeInt | None = None,
    shots_source: str | None = None,
    chat_template: bool = False,
    either_case: bool = False,
) -> None:
    """`source`: the test set; `limit`: only so many questions; `shots`: solved examples in the prompt, from
    `shots_source` or as lm-eval takes them; `untrained_shots`: those of models that were not trained here;
    `chat_template`: the tokenizer's; `either_case`: small letters are answers too, and the likelihood of a choice is
    the sum of both.
    """
