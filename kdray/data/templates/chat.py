"""The tokenizer's own chat template: one user turn, one assistant turn."""

from __future__ import annotations

import inspect
from datetime import datetime
from typing import Any

from transformers import PreTrainedTokenizerBase

from kdray.data.example import Example
from kdray.data.thoughts import closed
from kdray.spec import declare
from kdray.spec.chat import kept, require_read
from kdray.spec.errors import InputError
from kdray.spec.parameters import Scalars

DECLARED = declare.Template(version=1, later=("arguments", "close_thought"), begins=True)
DATE = datetime(2024, 7, 26)  # what Llama's templates print where they are given none
CODES = (
    "a",
    "A",
    "b",
    "B",
    "d",
    "-d",
    "e",
    "m",
    "-m",
    "y",
    "Y",
    "j",
    "H",
    "I",
    "p",
    "M",
    "S",
    "F",
    "D",
    "T",
    "x",
    "X",
    "c",
)


def chat(
    example: Example,
    tokenizer: PreTrainedTokenizerBase,
    *,
    arguments: Scalars | None = None,
    close_thought: bool = False,
) -> str:
    """The prompt up to where the assistant speaks.

    `arguments`: of the template itself, `{enable_thinking: false}`; `close_thought`: a thought that it opens is closed
    again, empty.

    Raises:
        InputError: there is no template, it does not know an argument, or it refuses the prompt or leaves out what is
            asked.
    """
    if tokenizer.chat_template is None:
        raise InputError("data.template", "this tokenizer has no chat template", "use the template 'alpaca'")
    content = f"{example.instruction}\n\n{example.context}" if example.context else example.instruction
    turns = [{"role": "user", "content": content}]
    given: Any = arguments or {}
    try:
        template = tokenizer.get_chat_template()
        _require_known(given, template, tokenizer)
        text = tokenizer.apply_chat_template(
            turns, chat_template=dated(template), tokenize=False, add_generation_prompt=True, **given
        )
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise refused(error, "data.template", "use the template 'alpaca'") from error
    if text and not kept(content, str(text)):
        found = "the model's chat template leaves out what is asked"
        raise InputError("data.template", found, "use the template 'alpaca'")
    return closed(str(text)) if close_thought else str(text)


def refused(error: Exception, field: str, allowed: str) -> InputError:
    """What a chat template, which is code of the model's, raised: by intent, `raise_exception('...')`, or because it is
    wrong.
    """
    reason = next((line for line in str(error).splitlines() if line.strip()), "")
    return InputError(
        field, f"the model's chat template cannot write this prompt ({reason or type(error).__name__})", allowed
    )


def _require_known(given: dict[str, Any], template: str, tokenizer: PreTrainedTokenizerBase) -> None:
    ours = {"messages", *inspect.signature(tokenizer.apply_chat_template).parameters} - {"kwargs"}
    for name in given:
        if name in ours:
            raise InputError(f"data.template.arguments.{name}", "is kdray's to set", "leave it out")
    require_read(given, template)


def dated(template: str) -> str:
    """`template`, printing one date for ever if it prints today's: what it gives must not depend on the day.

    transformers gives templates this function and lets nobody pass another; a macro of the same name hides it. Its
    line's end is dropped by the template engine and lets the template begin at the start of a line, as it did.
    """
    if "strftime_now" not in template:
        return template
    replaced = "".join(f" | replace('%{code}', '{DATE.strftime(f'%{code}')}')" for code in CODES)
    return f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}\n{template}"
