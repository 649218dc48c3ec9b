"""torch.compile for training: a decoder's layers one by one, for any number of tokens."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel


def compile_layers(model: PreTrainedModel) -> None:
    """Compile every layer of the decoder in place, when it first runs.

    All layers share one graph, whose number of tokens is left open: packed rows have another at every step, and of a
    decoder compiled as a whole each would make a new one.
    """
    decoder: Any = model.get_decoder()
    for layer in decoder.layers:
        layer.compile(dynamic=True)
