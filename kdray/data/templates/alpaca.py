"""The instruction template of Stanford Alpaca, which MiniLLM and the smoothed-KD paper use for plain models."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from kdray.data.example import Example
from kdray.spec import declare
from kdray.spec.errors import InputError

DECLARED = declare.Template(version=1, later=("bos",))


def alpaca(example: Example, tokenizer: PreTrainedTokenizerBase, *, bos: bool = False) -> str:
    """The prompt up to where the response begins; `bos`: behind the tokenizer's token for the beginning of a text.

    Raises:
        InputError: `bos`, and the tokenizer has no such token.
    """
    if bos and not isinstance(tokenizer.bos_token, str):
        raise InputError("data.template.bos", "true, and this tokenizer has no bos token", "leave it out")
    begin = str(tokenizer.bos_token) if bos else ""
    if example.context:
        return (
            f"{begin}Below is an instruction that describes a task, paired with an input that provides further context. "
            "Write a response that appropriately completes the request.\n\n"
            f"### Instruction:\n{example.instruction}\n\n### Input:\n{example.context}\n\n### Response:\n"
        )
    return (
        f"{begin}Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        f"### Instruction:\n{example.instruction}\n\n### Response:\n"
    )
