"""The prompts of a generation task, as rows with an order that never changes."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from kdray.data.example import Example
from kdray.data.rows import Rows
from kdray.data.sources import open_source
from kdray.spec.errors import InputError
from kdray.spec.refs import Reference
from kdray.store import Outer


@dataclass(frozen=True)
class Prompt:
    """What a model is given, and what its answer is compared with."""

    example: int
    input_ids: list[int]
    reference: str
    source: str  # the text that the answer must be true to


def heldout_prompts(rows: Rows, limit: int | None) -> list[Prompt]:
    """The prompts of the test rows or, where there are none, of the held-out rows, token for token as in training."""
    chosen = rows.test if len(rows.test) else rows.heldout
    return [
        Prompt(int(row), rows.input_ids(row)[: int(rows.prompt_lengths[row])], rows.text(row, "response"), rows.text(row, "context"))
        for row in chosen[:limit].tolist()
    ]


def task_prompts(
    name: str, params: dict[str, Any], ref: Reference, outer: Outer, tokenizer: PreTrainedTokenizerBase, template: Any
) -> list[Prompt]:
    """The prompts of a task with a data set of its own, in the grid's template.

    Raises:
        InputError: the data set lacks a column that the task needs.
    """
    make = getattr(importlib.import_module(f"kdray.score.tasks.{name}"), name)
    table = open_source(ref, outer, f"score.tasks.{name}.source")
    settings = {key: value for key, value in params.items() if key not in ("source", "limit", "max_new_tokens")}
    prompts = []
    for i, row in enumerate(table.select(range(min(len(table), params["limit"] or len(table))))):
        try:
            example: Example = make(row, **settings)
        except KeyError as error:
            known = ", ".join(table.column_names)
            raise InputError(f"score.tasks.{name}.source", f"no column {error} in {ref}", f"it has {known}") from None
        ids = tokenizer(template(example, tokenizer), add_special_tokens=False)["input_ids"]
        prompts.append(Prompt(i, ids, example.response, example.context))
    return prompts
