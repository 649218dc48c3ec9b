"""Listen to a model's layers during ordinary forward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from kdray.spec.errors import InputError


def blocks_of(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder's layers in order: its list of modules `layers`, or else its only list with an entry a layer.

    Raises:
        InputError: they cannot be found.
    """
    decoder = model.get_decoder()
    if decoder is model:  # of a model that does not know its own, such as Llama 4
        decoder = getattr(model, "model", model)
    lists = {name: child for name, child in decoder.named_children() if isinstance(child, nn.ModuleList)}
    if "layers" in lists:
        return lists["layers"]
    count = model.config.get_text_config(decoder=True).num_hidden_layers
    fitting = [child for child in lists.values() if len(child) == count]
    if len(fitting) != 1:
        found = f"the layers of {type(model).__name__} cannot be found"
        raise InputError("model", found, "a decoder with one list of them")
    return fitting[0]


def attention_of(block: nn.Module) -> nn.Module:
    """The attention block of a decoder layer, under whichever name its family gives it.

    Raises:
        InputError: it cannot be found.
    """
    for name in ("self_attn", "attention", "attn"):
        if isinstance(found := getattr(block, name, None), nn.Module):
            return found
    raise InputError("model", f"no attention block in a {type(block).__name__}", "a decoder whose layers have one")


@contextmanager
def listen(modules: Sequence[nn.Module], select: Callable[[Tensor], Tensor]) -> Iterator[list[Tensor]]:
    """Inside, the list holds what `select` makes of each module's output, [B, T, d], in the last forward pass."""
    kept: list[Any] = [None] * len(modules)

    def keep(place: int, _module: nn.Module, _args: Any, output: Tensor | tuple[Tensor, ...]) -> None:
        kept[place] = select(output if isinstance(output, Tensor) else output[0])

    hooks = [module.register_forward_hook(partial(keep, place)) for place, module in enumerate(modules)]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()
