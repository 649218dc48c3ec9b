"""The tokenizer's own chat template: one user turn, one assistant turn."""

from __future__ import annotations

from datetime import datetime

from transformers import PreTrainedTokenizerBase

from kdray.data.example import Example
from kdray.spec.errors import InputError

VERSION = 1
DATE = datetime(2024, 7, 26)  # what Llama's templates print where they are given none
CODES = ("a", "A", "b", "B", "d", "-d", "e", "m", "-m", "y", "Y", "j", "H", "I", "p", "M", "S", "F", "D", "T", "x", "X", "c")


def chat(example: Example, tokenizer: PreTrainedTokenizerBase) -> str:
    """The prompt up to where the assistant speaks."""
    if tokenizer.chat_template is None:
        raise InputError("data.template", "this tokenizer has no chat template", "use the template 'alpaca'")
    content = f"{example.instruction}\n\n{example.context}" if example.context else example.instruction
    turns = [{"role": "user", "content": content}]
    template = dated(tokenizer.get_chat_template())
    return str(tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False, add_generation_prompt=True))


def dated(template: str) -> str:
    """`template`, printing one date for ever if it prints today's: what it gives must not depend on the day.

    transformers gives templates this function and lets nobody pass another; a macro of the same name hides it. Its line's end
    is dropped by the template engine and lets the template begin at the start of a line, as it did.
    """
    if "strftime_now" not in template:
        return template
    replaced = "".join(f" | replace('%{code}', '{DATE.strftime(f'%{code}')}')" for code in CODES)
    return f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}\n{template}"
