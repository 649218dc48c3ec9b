"""PubMedQA: a biomedical question, the abstract without its conclusion as context, the conclusion as answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdray.data.cells import text_in, texts_in
from kdray.data.example import Example
from kdray.spec import declare

DECLARED = declare.Recipe(version=1, columns=("question", "context.contexts", "long_answer"))


def pubmed_qa(row: Mapping[str, Any]) -> Example:
    """Any config of qiaojin/PubMedQA. Its prompts have some 370 tokens, 720 at most: raise `max_prompt`."""
    context = "\n".join(texts_in(row, "context", "contexts"))
    return Example(text_in(row, "question").strip(), context.strip(), text_in(row, "long_answer").strip())
