"""Compiled layers train as plain ones, by one graph whatever the rows."""

from __future__ import annotations

from dataclasses import replace
from functools import partialmethod

import pytest
import torch

from kdray.artifacts.rows import Rows
from kdray.models.compiled import compile_layers
from kdray.models.head import ResponseModel
from kdray.models.load import load_folder
from kdray.train.engines import Ranks
from kdray.train.loop import Loop
from tests.tiny import write_model, write_rows
from tests.train.test_loop import SETTINGS


@pytest.mark.slow
@pytest.mark.parametrize("packing", [True, False])
def test_steps_of_any_length_are_those_of_plain_layers_by_one_graph(tmp_path, monkeypatch, packing):
    """By a compiler that makes no kernels: what is looked at is what it is asked for."""
    folder = write_model(tmp_path / "student")
    rows = Rows(write_rows(tmp_path / "rows", load_folder(folder)[1]))
    settings, losses, graphs = replace(SETTINGS, alpha=0.0, length=6.0, packing=packing), {}, []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    for name in ("plain", "compiled"):
        model, tokenizer = load_folder(folder)
        loop = Loop(
            ResponseModel(model), rows, settings, signal=None, vocab_size=len(tokenizer), ranks=Ranks(), micro_batch=3
        )
        if name == "compiled":
            torch._dynamo.reset()
            with monkeypatch.context() as patch:
                patch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend=count))
                compile_layers(model)
        losses[name] = [metrics["loss"] for metrics in loop.steps()]
    torch._dynamo.reset()
    assert losses["compiled"] == pytest.approx(losses["plain"], rel=1e-5)
    assert 1 <= len(graphs) <= 2 * (2 if packing else 1)  # of three sequences and of the one that is left
