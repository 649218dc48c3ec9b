"""Whether models know the tokens of rows and prompts: a tokenizer may have more than a model has embeddings of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from kdray.artifacts.rows import Rows
from kdray.spec.errors import InputError

SHOWN = 3  # rows that are named
ALLOWED = "give a model with an embedding of every token, or leave these rows out"


def require_known(rows: Rows, known: Mapping[str, int], tokenizer: Any) -> None:
    """Whether every row has a prompt, and every model embeddings of its tokens; `known`: how many each has, by its
    field.

    Raises:
        InputError: a row begins with what is to be learned, or a token is unknown; the rows are named as the source
            counts them.
    """
    sources = rows.table["source_row"].to_numpy()
    if len(empty := np.flatnonzero(rows.prompt_lengths < 1)):
        raise no_prompt(int(sources[empty[0]]))
    largest = _largest(rows)
    for field, size in known.items():
        if len(found := np.flatnonzero(largest >= size)):
            token = int(largest[found[0]])
            raise unknown(field, size, token, tokenizer, (int(sources[row]) + 1 for row in found))


def no_prompt(source_row: int) -> InputError:
    """What to say of a row, counted from 0, whose prompt has no token: nothing would predict the first token of its
    response.
    """
    return InputError(
        "data.template", f"the prompt of row {source_row + 1} has no token", "use a template that keeps what is asked"
    )


def unknown(field: str, size: int, token: int, tokenizer: Any, rows: Iterable[int]) -> InputError:
    """What to say of rows with tokens beyond an embedding of `size` tokens, `token` the largest of the first."""
    numbers = list(dict.fromkeys(rows))
    named = f"row{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers[:SHOWN]))}"
    named += f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    text = tokenizer.convert_ids_to_tokens(token)
    return InputError(field, f"its embedding has {size} tokens, and {named} token {token} ({text!r})", ALLOWED)


def _largest(rows: Rows) -> np.ndarray:
    """The largest token id of every row; none of them is empty."""
    parts = []
    for batch in rows.table.select(["input_ids"]).to_batches():
        column = batch.column("input_ids")
        starts = column.offsets.to_numpy()[:-1] - column.offsets[0].as_py()
        parts.append(np.maximum.reduceat(column.flatten().to_numpy(), starts))
    return np.concatenate(parts)
