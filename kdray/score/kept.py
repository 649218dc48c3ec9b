"""Answers as they are kept: what a model thought is told apart from what it answered."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kdray.artifacts.answers import Row, read_answers
from kdray.data.thoughts import split_thought, unwrapped
from kdray.score.prompts import cut_at_stop


def told_apart(prompt: Sequence[int], output: list[int], stops: Sequence[str], tokenizer: Any) -> Row:
    """The thought and the answer in what a model wrote behind a prompt, as columns of kept answers; stops end the
    answer alone.
    """
    found = split_thought(prompt, output, tokenizer)
    if found is None:
        ids, text = cut_at_stop(output, stops, tokenizer)
        return {"output_ids": ids, "answer": text, "thought_ids": [], "thought": None, "thought_end": None}
    ids, text = cut_at_stop(output[found.n_ids :], stops, tokenizer)
    columns = {"output_ids": ids, "answer": unwrapped(f"{found.rest}{text}"), "thought_ids": output[: found.n_ids]}
    return columns | {"thought": found.text, "thought_end": found.end}


def read_kept(folder: Path, tokenizer: Callable[[], Any]) -> list[Row]:
    """All answers of a `generate` artifact in the order of the examples.

    `tokenizer` gives that of the model which answered: it tells thoughts from answers that were kept together, before
    they were told apart while they were made.

    Raises:
        InputError: a part is damaged or missing, or holds something else.
    """
    tokenizer = functools.cache(tokenizer)

    def tell_apart(row: Row) -> Row:  # of which the answer has been cut at its stops already
        late = told_apart(row["input_ids"], row["output_ids"], [], tokenizer()) if row["error"] is None else {}
        nothing = {"thought_ids": [], "thought": None, "thought_end": None}
        return row | (late if late.get("thought") is not None else nothing)

    return read_answers(folder, tell_apart)
