"""The tokenizer's own chat template: one user turn, one assistant turn."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from kdray.data.example import Example
from kdray.spec.errors import InputError

VERSION = 1


def chat(example: Example, tokenizer: PreTrainedTokenizerBase) -> str:
    """The prompt up to where the assistant speaks."""
    if tokenizer.chat_template is None:
        raise InputError("data.template", "this tokenizer has no chat template", "use the template 'alpaca'")
    content = f"{example.instruction}\n\n{example.context}" if example.context else example.instruction
    turns = [{"role": "user", "content": content}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
