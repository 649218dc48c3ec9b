"""Where a point finds its soft labels. Imports nothing heavy: the driver and Ray's controllers pass it on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class AcrossTokens:
    """How soft labels of another tokenizer's tokens become the student's."""

    folder: str  # the rows in the teacher's tokens, and what of them is aligned
    align: Literal["text", "position"]
    translated: bool  # whether distributions are to be over the student's tokens


@dataclass(frozen=True)
class LabelSource:
    """Where soft labels come from, and how they are read."""

    folder: str  # the soft labels on disk or, for the form `online`, the teacher
    form: dict[str, Any]  # name and params
    compute: str  # type in which the teacher's backbone runs
    temperature: float = 1.0  # at which they were kept
    weight: float = 1.0  # in an ensemble
    quantise: str | None = None  # how the layers of a teacher that is asked are kept
    across: AcrossTokens | None = None  # of a teacher with other tokens
