"""A model as an actor reads it, with what is found out about it once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kdray.models.adapters import load_exported
from kdray.models.head import ResponseModel
from kdray.models.likelihood import SharedPrefix


@dataclass(frozen=True)
class Loaded:
    """A model with its tokenizer."""

    model: Any
    tokenizer: Any

    @functools.cached_property
    def shared(self) -> SharedPrefix:
        """What scores continuations of one context together."""
        return SharedPrefix(ResponseModel(self.model))


Load = Callable[[Path, str], Loaded]  # a model's folder, and the name of its torch dtype


def load_as(folder: Path, dtype: str) -> Loaded:
    """The model in a folder, or an export of adapters with its own, in that dtype, on this process's device.

    Raises:
        InputError: it cannot be read.
    """
    return Loaded(*load_exported(folder, getattr(torch, dtype)))
