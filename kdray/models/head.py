"""A language model as backbone and output head, so that logits are computed only where they are needed.

The head knows everything between the last hidden state and the logits: weight, bias, scale and softcap.
`split` checks it against the model's own logits, so that a model with something else there is refused. The backbone of
an encoder-decoder is both of its stacks.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kdray.models.encoder_decoder import EncoderDecoder, decoder_start
from kdray.models.packed import enable_packing
from kdray.spec.errors import InputError

TOLERANCE = 1e-3  # of the largest logit; a missed scale, bias or softcap is off by far more


class Head(nn.Module):
    """Hidden states after the final norm, [..., d], to logits, [..., V]; `added` [V] is a bias that is not trained."""

    linear: nn.Linear
    added: Tensor | None

    def __init__(
        self, linear: nn.Linear, scale: float = 1.0, softcap: float | None = None, added: Tensor | None = None
    ) -> None:
        super().__init__()
        self.linear, self.scale, self.softcap = linear, scale, softcap
        self.register_buffer("added", added, persistent=False)

    @property
    def bias(self) -> Tensor | None:
        """[V], the layer's own or the one that is not trained."""
        return self.linear.bias if self.added is None else self.added

    def forward(self, hidden: Tensor) -> Tensor:
        logits = self.linear(hidden) if self.added is None else self.linear(hidden) + self.added
        logits = logits * self.scale if self.scale != 1.0 else logits
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
        weight, bias = self.linear.weight[: out.shape[1]].to(hidden.dtype), self.bias
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
    """A language model, `whole`, that returns logits at chosen positions only.

    `start` is the token that the decoder of an encoder-decoder begins with; None of a causal model.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.whole, self.start = model, decoder_start(model)
        self.backbone, self.head = split(model)

    @property
    def device(self) -> torch.device:
        """Where the hidden states come out: the head's, if the layers are spread over several."""
        return self.head.linear.weight.device

    def hidden(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        positions: Tensor,
        position_ids: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
    ) -> Tensor:
        """[B, T] ids and mask, [N, 2] (row, column) positions -> [N, d] hidden states after the final norm, where the
        head is.

        With [1, T] position ids the one row is packed: a sequence begins wherever they are 0, and the mask is not
        needed. With [B, U] ids for a decoder, the positions are among these.

        Raises:
            InputError: a packed row, and a model that cannot keep its sequences apart.
        """
        if decoder_input_ids is not None:
            layout = {"attention_mask": attention_mask, "decoder_input_ids": decoder_input_ids}
        elif position_ids is None:
            layout = {"attention_mask": attention_mask}
        else:
            enable_packing(self.backbone)
            layout = {"position_ids": position_ids}
        states = self.backbone(input_ids=input_ids, use_cache=False, **layout).last_hidden_state
        rows, columns = positions.to(states.device).unbind(1)
        return states[rows, columns].to(self.device)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        positions: Tensor,
        position_ids: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
    ) -> Tensor:
        """As `hidden`, but -> [N, V] logits."""
        return self.head(self.hidden(input_ids, attention_mask, positions, position_ids, decoder_input_ids))


def split(model: PreTrainedModel) -> tuple[Any, Head]:
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
    softcap, both = getattr(config, "final_logit_softcapping", None), config.is_encoder_decoder
    backbone = EncoderDecoder(model) if both else model.get_decoder()
    if linear.weight.is_meta:
        return backbone, Head(linear, scale, softcap)
    added: Tensor | None = getattr(model, "final_logits_bias", None) if both else None  # BART's, mostly of zeros
    heads = [Head(linear, scale, softcap, added[0] if added is not None and added.any() else None)]
    if both:  # as T5 does, unless its head is another matrix than its embeddings; which field says so has changed
        heads.append(Head(linear, linear.in_features**-0.5))
    probe = torch.arange(1, 5, device=model.device)[None] % config.vocab_size
    asked = {"input_ids": probe, "use_cache": False} | ({"decoder_input_ids": probe} if both else {})
    was_training = model.training
    with torch.no_grad():
        model.eval()
        expected = model(**asked).logits
        states = backbone(**asked).last_hidden_state
        model.train(was_training)
        # T5 scales its states and not its logits, which is the same but for rounding.
        limit = max(TOLERANCE, 8 * torch.finfo(expected.dtype).eps) if both else TOLERANCE
        for head in heads:
            got = head(states).to(expected.device)
            if torch.allclose(got.float(), expected.float(), atol=limit * expected.abs().max().item()):
                return backbone, head
    raise InputError("model", f"the output head of {type(model).__name__}", "a linear head with bias, scale or softcap")
