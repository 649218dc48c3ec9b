"""The instruction as it is and, behind a space, the answer: for plain models, and for tasks that lm-eval asks in its
own words.
"""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from kdray.data.example import Example
from kdray.data.tokenise import beginning
from kdray.spec import declare

DECLARED = declare.Template(version=1, begins=True, space=True)


def plain(example: Example, tokenizer: PreTrainedTokenizerBase) -> str:
    """The prompt, begun as the tokenizer begins every text (with its BOS token, or with nothing); a context is a
    paragraph of its own.
    """
    begin = "".join(tokenizer.convert_ids_to_tokens(beginning(tokenizer)))
    return f"{begin}{example.instruction}\n\n{example.context}" if example.context else f"{begin}{example.instruction}"
