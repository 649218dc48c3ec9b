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
    """The decoder's layers in order.

    Raises:
        InputError: they cannot be found.
    """
    blocks = getattr(model.get_decoder(), "layers", None)
    if not isinstance(blocks, nn.ModuleList):
        raise InputError("model", f"the layers of {type(model).__name__} cannot be found", "a decoder with a list `layers`")
    return blocks


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
