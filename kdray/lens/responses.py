"""Annotated responses as a model reads them: from a file in one of the formats to passages of tokens, with their
numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from kdray.lens.align import Aligned, align
from kdray.lens.annotations import Annotated, statistics
from kdray.spec import declare
from kdray.spec.components import load
from kdray.spec.errors import InputError

SHOWN = 5  # of the responses that cannot be used


def read_responses(kind: str, path: Path, limit: int | None = None) -> list[Annotated]:
    """The annotated responses in a file of the format `kind`, or `limit` of them, spread evenly over it.

    Raises:
        InputError: the file is not what it should be, or empty.
    """
    rows = list(load(declare.Annotations, kind)(path))
    if not rows:
        raise InputError("annotations", f"{path} has no responses", "give annotated responses")
    return rows if limit is None or limit >= len(rows) else [rows[i * len(rows) // limit] for i in range(limit)]


def align_all(
    rows: Sequence[Annotated],
    tokenizer: PreTrainedTokenizerBase,
    template: Any,
    max_words: int | None,
    reads: int | None,
    tell: Callable[[str], None],
) -> tuple[list[Aligned], dict[str, Any]]:
    """The rows as tokens, as `align` makes them, and the numbers of all; `tell` is told what is left out, and why.

    Raises:
        InputError: none of them can be used.
    """
    aligned, problems = align(rows, tokenizer, template, max_words, reads)
    for problem in problems[:SHOWN]:
        tell(f"'{problem.id}' is left out: {problem.reason}")
    if len(problems) > SHOWN:
        tell(f"{len(problems) - SHOWN} more are left out")
    if not aligned:
        reason = f" ({problems[0].reason})" if problems else ""
        raise InputError("annotations", f"no usable response of {len(rows)}{reason}", "see docs/lens.md")
    return aligned, {**statistics(rows), "left_out": len(problems)}
