"""A language model as backbone and output head, so that logits are computed only where they are needed.

The head knows everything between the last hidden state and the logits: weight, bias, scale and softcap.
`split` checks it against the model's own logits, so that a model with something else there is refused.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kdray.models.packed import enable_packing
from kdray.spec.errors import InputError

TOLERANCE = 1e-3  # of the largest logit; a missed scale, bias or softcap is off by far more


class Head(nn.Module):
    """Hidden states after the final norm, [..., d], to logits, [..., V]."""

    linear: nn.Linear

    def __init__(self, linear: nn.Linear, scale: float = 1.0, softcap: float | None = None) -> None:
        super().__init__()
        self.linear, self.scale, self.softcap = linear, scale, softcap

    def forward(self, hidden: Tensor) -> Tensor:
        logits = self.linear(hidden) * self.scale if self.scale != 1.0 else self.linear(hidden)
        return self.softcap * torch.tanh(logits / self.softcap) if self.softcap else logits

    def as_type(self, dtype: torch.dtype) -> Head:
        """A frozen head of this type: itself, or a copy, so that a head tied to embeddings leaves them as they are."""
        if self.linear.weight.dtype == dtype:
            return self
        return copy.deepcopy(self).to(dtype).requires_grad_(False)

    def write(self, hidden: Tensor, out: Tensor) -> Tensor:
        """The logits of the first V' tokens into `out`, [N, V']; the product is taken in the type of `hidden`.

        No gradient.
        """
        weight, bias = self.linear.weight[: out.shape[1]].to(hidden.dtype), self.linear.bias
        if out.dtype == hidden.dtype:
            torch.mm(hidden, weight.T, out=out)
        else:
            out.copy_(torch.mm(hidden, weight.T))
        if bias is not None:
            out += bias[: out.shape[1]]
        self.finish_(out)
        return out

    def finish_(self, z: Tensor) -> Tensor | None:
        """Apply scale and softcap in place to what the linear layer gave; returns the softcap's slope, None for 1."""
        if self.scale != 1.0:
            z *= self.scale
        if not self.softcap:
            return None
        z.div_(self.softcap).tanh_()
        slope = 1 - z * z
        z *= self.softcap
        return slope


class ResponseModel(nn.Module):
    """A causal language model, `whole`, that returns logits at chosen positions only."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.whole = model
        self.backbone, self.head = split(model)

    @property
    def device(self) -> torch.device:
        """Where the hidden states come out: the head's, if the layers are spread over several."""
        return self.head.linear.weight.device

    def hidden(
        self, input_ids: Tensor, attention_mask: Tensor, positions: Tensor, position_ids: Tensor | None = None
    ) -> Tensor:
        """[B, T] ids and mask, [N, 2] (row, column) positions -> [N, d] hidden states after the final norm, where the
        head is.

        With [1, T] position ids the one row is packed: a sequence begins wherever they are 0, and the mask is not
        needed.

        Raises:
            InputError: a packed row, and a model that cannot keep its sequences apart.
        """
        if position_ids is None:
            layout = {"attention_mask": attention_mask}
        else:
            enable_packing(self.backbone)
            layout = {"position_ids": position_ids}
        states = self.backbone(input_ids=input_ids, use_cache=False, **layout).last_hidden_state
        rows, columns = positions.to(states.device).unbind(1)
        return states[rows, columns].to(self.device)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, positions: Tensor, position_ids: Tensor | None = None
    ) -> Tensor:
        """As `hidden`, but -> [N, V] logits."""
        return self.head(self.hidden(input_ids, attention_mask, positions, position_ids))


def split(model: PreTrainedModel) -> tuple[PreTrainedModel, Head]:
    """The backbone and the head of `model`; without weights, on the `meta` device, it cannot be tried.

    Raises:
        InputError: head(backbone(x)) does not give the model's logits, or the head has adapters, which the losses,
            reading its weight, would pass by.
    """
    config, linear = model.config, model.get_output_embeddings()
    if type(linear) is not nn.Linear:
        raise InputError(
            "model", f"an output head of type {type(linear).__name__}", "a plain linear layer, without adapters"
        )
    scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
    backbone = model.get_decoder()
    head = Head(linear, scale, getattr(config, "final_logit_softcapping", None))
    if linear.weight.is_meta:
        return backbone, head
    probe = torch.arange(1, 5, device=model.device)[None] % config.vocab_size
    was_training = model.training
    with torch.no_grad():
        model.eval()
        expected = model(input_ids=probe, use_cache=False).logits
        got = head(backbone(input_ids=probe, use_cache=False).last_hidden_state).to(expected.device)
        model.train(was_training)
    if not torch.allclose(got.float(), expected.float(), atol=TOLERANCE * expected.abs().max().item()):
        raise InputError(
            "model", f"the output head of {type(model).__name__}", "a linear head with bias, scale or softcap"
        )
    return backbone, head
