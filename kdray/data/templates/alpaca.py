"""The instruction template of Stanford Alpaca, which MiniLLM and the smoothed-KD paper use for plain models."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from kdray.data.example import Example
from kdray.spec import declare
from kdray.spec.chat import CHATML, require_marks
from kdray.spec.errors import InputError

DECLARED = declare.Template(version=1, later=("bos", "chatml"))


def alpaca(example: Example, tokenizer: PreTrainedTokenizerBase, *, bos: bool = False, chatml: bool = False) -> str:
    """The prompt up to where the response begins.

    `bos`: behind the tokenizer's token for the beginning of a text. `chatml`: as a turn between the marks of Qwen's
    chats, before the word Assistant, as MiniLLM and the paper write it for that family.

    Raises:
        InputError: the tokenizer has no such tokens.
    """
    if chatml:
        known: Any = tokenizer
        require_marks(known.get_added_vocab())
    if bos and not isinstance(tokenizer.bos_token, str):
        raise InputError("data.template.bos", "true, and this tokenizer has no bos token", "leave it out")
    begin = str(tokenizer.bos_token) if bos else ""
    start, end = CHATML
    return f"{begin}{start}{_text(example)}{end}{start}Assistant:" if chatml else f"{begin}{_text(example)}"


def _text(example: Example) -> str:
    if example.context:
        return (
            "Below is an instruction that describes a task, paired with an input that provides further context. "
            "Write a response that appropriately completes the request.\n\n"
            f"### Instruction:\n{example.instruction}\n\n### Input:\n{example.context}\n\n### Response:\n"
        )
    return (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        f"### Instruction:\n{example.instruction}\n\n### Response:\n"
    )
