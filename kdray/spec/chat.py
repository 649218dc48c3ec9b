"""What is known of chat templates and of beginnings of texts without a tokenizer."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any

from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.errors import InputError

CHATML = ("<|im_start|>", "<|im_end|>")  # around a turn
NEED_BOS = (
    "gemma",
    "recurrent_gemma",
)  # families whose models write nonsense behind a text that does not begin with it


def require_read(arguments: Mapping[str, Any], template: str) -> None:
    """Raise InputError if a chat template does not read one of `arguments`: it would change nothing, without a word."""
    for name in arguments:
        if not re.search(rf"\b{re.escape(name)}\b", template):
            found, allowed = "the model's chat template does not read it", "see the template, or leave it out"
            raise InputError(f"data.template.arguments.{name}", found, allowed)


def kept(content: str, prompt: str) -> bool:
    """Whether a chat template has written what is asked into a prompt, white space aside. One for images and text
    passes a plain text by.
    """
    return "".join(content.split()) in "".join(prompt.split())


def require_marks(vocabulary: Container[str]) -> None:
    """Raise InputError if a tokenizer lacks the marks of `chatml`: it would take them apart."""
    if lacking := [mark for mark in CHATML if mark not in vocabulary]:
        raise InputError("data.template.chatml", f"true, and the tokenizer has no token {lacking[0]}", "leave it out")


def bos_warning(recipe: str, template: str, params: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """What is wrong with the rows of a recipe, by a template, for a model of this configuration."""
    kind = str(config.get("model_type"))
    if kind.startswith(NEED_BOS) and not declared(declare.Recipe, recipe).prompts:
        return f"documents do not begin with the bos token, without which {kind} models fail: begin every text with it"
    if declared(declare.Template, template).begins or params.get("bos") or not kind.startswith(NEED_BOS):
        return None
    return (
        f"prompts do not begin with the bos token, without which {kind} models fail: write {{name: {template}, bos:"
        " true}, or chat"
    )
