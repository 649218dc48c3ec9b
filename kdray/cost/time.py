"""How long a card takes, by operations, bytes moved and the time that Python takes to start kernels. All in seconds."""

from __future__ import annotations

import math

from kdray.cost.cards import Card
from kdray.cost.decoder import BFLOAT16, FLOAT32, Decoder
from kdray.cost.memory import Training, adapters

DISK = 1.3e9  # bytes a second to a shared file system, checksums included
STREAMS = 256  # answers that vLLM makes side by side


def of_training_step(model: Decoder, how: Training, card: Card, operations: float, sharers: int = 1) -> float:
    """One optimiser step of a point whose workers do so many operations together, `sharers` such points on each GPU.

    Weights and gradients pass the links while products run; casts, copies out of buffers and AdamW do not overlap with
    either. Points that share a GPU fill the time in which Python starts kernels: one does not slow another down until
    the GPU is busy all the time.
    """
    width = BFLOAT16 if how.bfloat16 else FLOAT32
    trained = adapters(model, how.rank) if how.rank else model.weights
    sent, copied = 0.0, 0.0
    if how.workers > 1:
        travelling = (how.workers - 1) / how.workers * FLOAT32
        # Gathered for the forward and the backward pass, gradients scattered; or gradients summed up, there and back.
        sent = travelling * (2 * model.weights + trained if how.shares else 2 * trained)
        copied = 2 * FLOAT32 * (2 * model.weights + trained if how.shares else trained)
    passes = 3 if how.checkpointing else 2
    cast = passes * (FLOAT32 + BFLOAT16) * model.body if how.bfloat16 and not how.quantised else 0.0
    moved = (
        20 * FLOAT32 * trained / (how.workers if how.shares else 1)
    )  # AdamW and clipping, one operation after the other
    products = operations / how.workers / card.products * card.times(width)
    started = (passes + 1) * model.layers * card.training_launch
    memory = (cast + copied + moved) / card.bandwidth
    return max(max(products, sent / card.link, started) + memory, sharers * (products + memory))


def of_looking(model: Decoder, how: Training, card: Card, operations: float, batches: float, sharers: int = 1) -> float:
    """So many operations without gradients, in so many batches that the workers of a point deal out."""
    products = operations / how.workers / card.products * card.times(BFLOAT16 if how.bfloat16 else FLOAT32)
    started = math.ceil(batches / how.workers) * model.layers * card.training_launch
    return max(products, started, sharers * products)


def of_answers(
    model: Decoder,
    card: Card,
    gpus: int,
    width: int,
    batch: int,
    prompts: int,
    tokens: float,
    answer: float,
    vllm: bool,
) -> float:
    """So many prompts of `tokens` tokens, in batches whose longest answer has `answer` tokens.

    A new token takes as long as all weights take to be read and all keys and values to be copied behind which its own
    are put, or as Python takes to start a pass. vLLM copies none.
    """
    together = STREAMS if vllm else batch
    products = (
        model.forward(prompts * (tokens + answer), tokens / 2, prompts * (1 + answer))
        / card.products
        * card.times(width)
        / gpus
    )
    read = width * model.weights / card.bandwidth
    copied = 2 * min(batch, prompts) * (tokens + answer / 2) * model.cache(width) / card.bandwidth
    a_token = read if vllm else max(read + copied, model.layers * card.launch)
    return products + math.ceil(prompts / together) * answer * a_token


def of_reading(
    model: Decoder, card: Card, gpus: int, width: int, batch: int, sequences: int, tokens: float, predicted: float
) -> float:
    """So many sequences of `tokens` tokens in one pass each, `predicted` tokens of which get logits."""
    operations = model.forward(sequences * tokens, tokens / 2, sequences * predicted)
    return max(
        operations / card.products * card.times(width) / gpus, math.ceil(sequences / batch) * model.layers * card.launch
    )
