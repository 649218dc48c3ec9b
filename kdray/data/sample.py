"""The first rows of a local file, looked at before anything is prepared: how many have prompts that are too long.

Only the texts are counted, without what a template puts around them, so that there are at least so many. It takes the
`tokenizers` library and no model.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from kdray.check.checks import in_hub_cache
from kdray.data.example import Example
from kdray.plan.limits import fitting, limit_notes
from kdray.spec import declare
from kdray.spec.columns import recipe_columns
from kdray.spec.components import load
from kdray.spec.errors import InputError
from kdray.spec.folders import TOKENIZER
from kdray.spec.grid import Grid
from kdray.spec.refs import parse_reference
from kdray.store import Outer
from kdray.store.records import TEXTS, Records, open_table

ROWS = 256


def sampled_notes(grid: Grid, outer: Outer) -> list[str]:
    """What the limits of a grid would take from the first rows of its file; nothing where the file or the student's
    tokenizer is not on this machine.

    Raises:
        InputError: a row holds something that the recipe cannot read.
    """
    source, tokenizer = parse_reference(grid.data.source, "data.source"), _tokenizer(grid, outer)
    if source.scheme != "file" or tokenizer is None:
        return []
    recipe, examples, skipped = grid.data.recipe, [], 0
    make = load(declare.Recipe, recipe.name)
    with open_table(Path(source.name), source.field) as (file, suffix):
        if suffix not in TEXTS:
            return []
        columns = recipe_columns(recipe.name, recipe.params)
        records = iter(Records(file, suffix, columns, str(source), source.field))
        for number, row in enumerate(itertools.islice(records, ROWS), start=1):
            empty = {column.names[0]: None for column in columns if len(column.names) == 1 and not column.key}
            try:
                example = make(empty | row, **recipe.params)
            except InputError as error:
                raise InputError(error.field, f"{error.found} in row {number}", error.allowed) from None
            if isinstance(example, Example) and example.response:
                examples.append(example)
            else:
                skipped += 1
    prompts = [f"{example.instruction}\n\n{example.context}".strip() for example in examples]
    lengths = [len(ids) for ids in tokenizer.encode_batch(prompts, add_special_tokens=False)]
    long = [length for length in lengths if length > grid.data.max_prompt]
    facts = {"read": len(examples) + skipped, "skipped": skipped, "empty": 0, "long": len(long), "truncated": 0}
    facts |= {"prompts": fitting(long, len(examples), grid.data.max_prompt)}
    return limit_notes(facts, grid.data.max_prompt, grid.data.max_length, of="first ", least="at least ")


def _tokenizer(grid: Grid, outer: Outer) -> Any | None:
    """The student's, as far as a file on this machine has it whole."""
    from tokenizers import Tokenizer

    ref = parse_reference(grid.student.model, "student.model")
    folder = in_hub_cache(ref, outer) if ref.scheme == "hf" else Path(ref.name) if ref.scheme == "file" else None
    if folder is None or not (folder / TOKENIZER).is_file():
        return None
    try:
        found = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception:  # noqa: BLE001 - the library's one kind; what is wrong with it is said where it is loaded
        return None
    found.no_truncation()
    found.no_padding()
    return found
