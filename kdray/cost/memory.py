"""The most memory that a GPU needs at once, by what it is for. All in bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kdray.cost.decoder import BFLOAT16, FLOAT32, Decoder

ADAM = 2 * FLOAT32  # of a weight: both moments
CHUNK = 256  # response tokens whose logits the fused loss holds at once, at least,
LOGITS = 1 << 30  # and as many as fit here
NF4 = 0.53  # bytes of a quantised weight, its scales counted
QUANTISED = {"4bit": NF4, "8bit": 1.0}


@dataclass(frozen=True)
class Memory:
    """Of one GPU, by component."""

    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.parts.values())


@dataclass(frozen=True)
class Training:
    """How a model is trained, as far as memory goes; `rank` of its adapters, None for all weights."""

    workers: int
    engine: str  # ddp, fsdp or deepspeed
    stage: int  # of ZeRO
    bfloat16: bool
    checkpointing: bool
    rank: int | None
    quantised: bool

    @property
    def shares(self) -> bool:
        """Whether each worker holds a part of the weights only."""
        return self.workers > 1 and (self.engine == "fsdp" or self.stage == 3)


def weights_of(model: Decoder, width: float, quantise: str | None = None) -> float:
    """Bytes of a model whose weights take `width` each, those of its layers less where they are quantised."""
    return model.weights * width - (model.body * (width - QUANTISED[quantise]) if quantise else 0.0)


def adapters(model: Decoder, rank: int) -> int:
    """Weights of low-rank adapters on all linear layers: rank rows and columns a matrix."""
    attention = 2 * (model.hidden + model.heads * model.head) + 2 * (model.hidden + model.key_heads * model.head)
    return model.layers * rank * (attention + model.matrices * (model.hidden + model.inner))


def of_training(model: Decoder, how: Training, tokens: float, predicted: float) -> Memory:
    """Of a worker whose micro-batch has so many tokens, of which `predicted` are responses. `width` and `tables` below
    are bytes of a weight of the layers, and of the embeddings.

    Gradients grow while the bfloat16 copies of the forward pass are let go of: the larger of both counts. A worker
    loads the whole model before it keeps its own share: where that takes more than training does, it is what counts.
    """
    narrow = how.rank is not None and how.bfloat16 and how.engine == "ddp"  # frozen layers, as autocast wants them
    width, tables = (NF4, BFLOAT16) if how.quantised else (BFLOAT16 if narrow else FLOAT32, FLOAT32)
    own = 1 / how.workers if how.shares else 1.0
    rest = model.weights - model.body
    whole = width * model.body + tables * rest
    trained = adapters(model, how.rank) if how.rank else model.weights
    # Where layers are shared, autocast keeps no copy of theirs.
    copies = BFLOAT16 * model.body if how.bfloat16 and not (how.quantised or narrow or how.shares) else 0
    moments = ADAM * trained / (how.workers if how.shares or how.stage in (1, 2) else 1)
    parts = {"weights": whole * own} | ({"adapters": FLOAT32 * trained * own} if how.rank else {})
    in_buckets = how.engine == "ddp" and how.workers > 1  # gradients are there, and buckets stay
    gradients = 0 if in_buckets else FLOAT32 * trained * own
    parts |= {"optimiser": moments, "gradients and copies": max(gradients, copies)}
    if how.shares:  # the layer at work, the next one, the gradients of one, and the embeddings all the time
        parts["gathered"] = width * 2 * model.layer + tables * rest + (0 if how.rank else FLOAT32 * model.layer)
    elif how.workers > 1:
        parts["buckets"] = FLOAT32 * trained
    parts["activations"] = activations(model, how, tokens)
    heads = 0 if how.rank else 2  # the gradient of the output head, summed over chunks; the head as it is used
    logits = min(max(FLOAT32 * CHUNK * model.vocabulary, LOGITS), FLOAT32 * predicted * model.vocabulary)
    parts["loss"] = FLOAT32 * heads * model.embedding + 2 * logits + 2 * FLOAT32 * predicted * model.hidden
    training = Memory(parts)
    return training if training.total > whole else Memory({"weights, whole while they are loaded": whole})


def activations(model: Decoder, how: Training, tokens: float) -> float:
    """What a forward pass keeps for the backward one; attention keeps no matrix of tokens by tokens.

    With checkpointing the inputs of all layers, and all of one layer.
    """
    width = BFLOAT16 if how.bfloat16 else FLOAT32
    attention = (
        width * (2 * model.heads + 2 * model.key_heads) * model.head
    )  # queries, keys, values and what comes of them
    block = (
        width * (2 * model.matrices - 2) * model.inner
    )  # of a gated one: gate, its activation, the other product, both multiplied
    casts = 2 + model.matrices if how.bfloat16 else 2  # inputs of products: autocast makes each its own copy
    stream = (
        4 * FLOAT32 + casts * width
    ) * model.hidden  # and of each of two norms its input in float32, and the same normalised
    layer = tokens * (attention + block + stream)
    return layer + tokens * FLOAT32 * model.hidden * model.layers if how.checkpointing else layer * model.layers


def of_answers(model: Decoder, gpus: int, width: int, batch: int, tokens: float, quantise: str | None = None) -> Memory:
    """Of each of the GPUs that a model is spread over, while it answers `batch` prompts of so many tokens, the answer's
    counted.
    """
    first = FLOAT32 * batch * model.vocabulary + width * batch * tokens * (2 * model.inner + 4 * model.hidden)
    return Memory(
        {
            "weights": weights_of(model, width, quantise) / gpus,
            "keys and values": model.cache(width) * batch * tokens / gpus,
            "activations": first,
        }
    )


def of_likelihoods(model: Decoder, gpus: int, width: int, batch: int, tokens: float) -> Memory:
    """Of each GPU, while the log-likelihoods of `batch` sequences of so many tokens are taken, all logits in float32
    twice.
    """
    return Memory(
        {
            "weights": width * model.weights / gpus,
            "activations": width * batch * tokens * (2 * model.inner + 4 * model.hidden),
            "logits": (width + FLOAT32) * batch * tokens * model.vocabulary,
        }
    )
