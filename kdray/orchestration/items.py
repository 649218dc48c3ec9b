"""Pieces of work for actors. What is large is not in them: actors read it from the store, and write there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdray.orchestration.pools import Item
from kdray.score.prompt_file import read_prompts
from kdray.score.prompts import Prompt


@dataclass(frozen=True, kw_only=True)
class Part(Item):
    """Makes part `index` of what lies in the folder `target`, of these rows."""

    target: Path
    index: int
    rows: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True)
class PromptBatch(Part):
    """Prompts of one part, by their rows in the file `prompts`, for the model in a folder.

    `decoding` has `name` and `params`; an answer ends before one of `stops`.
    """

    model: Path
    dtype: str
    decoding: Mapping[str, Any]
    max_new_tokens: int
    prompts: Path
    stops: Sequence[str] = ()

    @property
    def loads(self) -> Path:
        return self.model

    def read(self) -> list[Prompt]:
        """The prompts."""
        return read_prompts(self.prompts, self.rows)
