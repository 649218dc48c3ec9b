"""The sizes of a decoder, by its configuration alone: weights, and floating-point operations and bytes a token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

# A gate beside the two products of a feed-forward block: three matrices of its size.
GATED = {
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "smollm3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi3",
    "olmo2",
    "granite",
    "cohere",
}
PLAIN = {"gpt2", "gpt_neox", "phi", "starcoder2"}
FLOAT32, BFLOAT16 = 4, 2  # bytes


@dataclass(frozen=True)
class Decoder:
    """A decoder of dense layers. `inner` is the width of its feed-forward blocks, of `matrices` matrices each."""

    layers: int
    hidden: int
    heads: int
    key_heads: int
    head: int  # width of one
    inner: int
    matrices: int
    vocabulary: int
    tied: bool
    positions: int = 0  # rows of a table of positions, where there is one

    @property
    def layer(self) -> int:
        """Weights of the matrices of one layer."""
        attention = 2 * self.hidden * self.head * (self.heads + self.key_heads)
        return attention + self.matrices * self.hidden * self.inner

    @property
    def body(self) -> int:
        """Weights that every token is multiplied by, the output head apart."""
        return self.layers * self.layer

    @property
    def embedding(self) -> int:
        """Weights of one table of the vocabulary, as the output head is."""
        return self.vocabulary * self.hidden

    @property
    def weights(self) -> int:
        """All of them but norms and biases, which are a thousandth."""
        return self.body + self.embedding * (1 if self.tied else 2) + self.positions * self.hidden

    def forward(self, tokens: float, keys: float, predicted: float) -> float:
        """Floating-point operations of a forward pass: two a weight and token, and attention to `keys` tokens in the
        mean.

        Only `predicted` tokens pass the output head.
        """
        attention = 4 * self.layers * self.heads * self.head * keys * tokens
        return 2 * self.body * tokens + attention + 2 * self.embedding * predicted

    def cache(self, width: int) -> int:
        """Bytes of keys and values that a token leaves, in numbers of `width` bytes."""
        return 2 * self.layers * self.key_heads * self.head * width

    def without(self, layers: int) -> Decoder:
        """The same with so many layers fewer."""
        return replace(self, layers=self.layers - layers)


def decoder_of(config: Mapping[str, Any]) -> Decoder | None:
    """The decoder that a configuration describes (counts by their common names, see `read_config`).

    None for a family whose layers are of another kind, such as mixtures of experts: no number is better than a wrong
    one.
    """
    family = config.get("model_type")
    if (
        family not in GATED | PLAIN
        or not {"num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size"} <= config.keys()
    ):
        return None
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    tied = config.get("tie_word_embeddings", family in {"gpt2", "gemma", "gemma2", "gemma3_text", "cohere"})
    return Decoder(
        layers=config["num_hidden_layers"],
        hidden=hidden,
        heads=heads,
        key_heads=config.get("num_key_value_heads") or heads,
        head=config.get("head_dim") or hidden // heads,
        inner=config.get("intermediate_size") or config.get("n_inner") or 4 * hidden,
        matrices=3 if family in GATED else 2,
        vocabulary=config["vocab_size"],
        tied=tied,
        positions=config.get("max_position_embeddings", 1024) if family == "gpt2" else 0,
    )
