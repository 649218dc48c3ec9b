"""A tiny random model that the tests of citations ask, and the plain way to ask it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import pytest
import torch

from kdray.cite.layout import Said
from kdray.models.loaded import Loaded, load_as
from tests.tiny import write_model

Plain = Callable[[Sequence[int], Said], float]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load_as(write_model(tmp_path_factory.mktemp("model"), layers=2), "float32")


@pytest.fixture(scope="session")
def plain(tiny: Loaded) -> Plain:
    """log p(statement | prompt, what was said before), by a pass of its own in float64."""
    model = copy.deepcopy(tiny.model).double()

    def one_pass(prompt: Sequence[int], said: Said) -> float:
        context = [*prompt, *said.before]
        with torch.no_grad():
            logits = model(torch.tensor([[*context, *said.ids]])).logits[0, len(context) - 1 : -1]
        return float(logits.log_softmax(1)[torch.arange(len(said.ids)), list(said.ids)].sum())

    return one_pass
