"""Text encoders in plain folders: hidden states of tokens, and one vector a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from kdray.models.weights import load_whole
from kdray.spec.folders import window_in


class Encoder:
    """An encoder, such as BERT, and its tokenizer."""

    def __init__(self, folder: Path, device: torch.device | str, field: str = "model") -> None:
        self.model: Any = load_whole(AutoModel, folder, field, body=True)
        self.model.to(device).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.device = device

    @property
    def layers(self) -> int:
        return self.model.config.num_hidden_layers

    @torch.inference_mode()
    def states(self, texts: Sequence[str], layer: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """([B, T, D] hidden states after `layer`, by default the last, [B, T] mask of tokens, [B, T] mask of words).

        Words are tokens but for the special ones. Texts longer than the encoder's window are cut.
        """
        window = min(self.tokenizer.model_max_length, window_in(self.model.config.to_dict()) or 512)
        inputs = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=window,
            return_special_tokens_mask=True,
            return_tensors="pt",
        ).to(self.device)
        special = inputs.pop("special_tokens_mask")
        output = self.model(**inputs, output_hidden_states=layer is not None)
        states = output.last_hidden_state if layer is None else output.hidden_states[layer]
        mask = inputs["attention_mask"]
        return states.float(), mask.bool(), (mask * (1 - special)).bool()

    def vectors(self, texts: Sequence[str], batch: int = 32) -> Tensor:
        """[N, D] unit vectors: the mean over a text's tokens, as sentence encoders are trained."""
        pooled = []
        for start in range(0, len(texts), batch):
            states, mask, _ = self.states(texts[start : start + batch])
            pooled.append((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
        return torch.nn.functional.normalize(torch.cat(pooled), dim=-1)
