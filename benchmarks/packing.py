"""What packing saves: CPU time of a training step on padded batches over that on packed ones, at Dolly's lengths.

    python -m benchmarks.packing --json

A model of SmolLM2's shape (10 layers, random weights), forward and backward with a loss on response tokens only, one
thread, process CPU time. Both kinds go over the same sequences in the same batches, turn by turn; prints the ratio
of times and, beside it, that of tokens.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kdray.artifacts.rows import Rows
from kdray.data.collate import Batch, collate, pack
from kdray.models.head import ResponseModel

# Tokens of prompt and response at 0/32, 1/32, ... 32/32 of databricks-dolly-15k's rows, by SmolLM2-135M-Instruct's
# tokenizer and chat template, cut at 512; of all tokens, 43% are the response's.
QUANTILES = [
    34,
    47,
    52,
    56,
    58,
    62,
    67,
    72,
    78,
    84,
    90,
    96,
    102,
    108,
    115,
    123,
    130,
    138,
    148,
    158,
    171,
    185,
    200,
    215,
    230,
]
QUANTILES += [249, 272, 299, 331, 373, 427, 512, 512]
RESPONSE_SHARE = 0.43
VOCABULARY = 49152
# of the order: one in which batches of 2, 4 and 8 hold as much padding as random ones do on average (28, 45, 55%)
SEED = 14
NEEDED = {2: 1.25, 4: 1.6, 8: 2.1}  # time of padded over packed, by sequences in a batch


class Sequences:
    """Random tokens at evenly spaced quantiles of Dolly's lengths, in a fixed random order; read like `Rows`."""

    def __init__(self, count: int) -> None:
        at = (np.arange(count) + 0.5) / count
        self.lengths = np.interp(at, np.linspace(0, 1, len(QUANTILES)), QUANTILES).round().astype(int)
        np.random.Generator(np.random.PCG64(SEED)).shuffle(self.lengths)
        self.prompt_lengths = self.lengths - np.maximum(1, (RESPONSE_SHARE * self.lengths).astype(int))

    def input_ids(self, row: int) -> list[int]:
        return random.Random(row).choices(range(VOCABULARY), k=int(self.lengths[row]))


def make_model(layers: int = 10) -> ResponseModel:
    """SmolLM2-135M's shape with fewer layers and random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    return ResponseModel(LlamaForCausalLM(config).train())


def measure(sizes: Sequence[int] = (2, 4, 8), repetitions: int = 5, sequences: int = 24) -> dict[str, Any]:
    """CPU seconds of padded and packed steps over all `sequences`, by sequences in a batch; sets torch to one thread.

    `min` and `median` are taken of every batch over the repetitions, and then summed.
    """
    torch.set_num_threads(1)
    model, rows = make_model(), cast(Rows, Sequences(sequences))
    results = {}
    for size in sizes:
        chosen = [range(begin, begin + size) for begin in range(0, sequences, size)]
        pairs = [(collate(rows, some), pack(rows, some)) for some in chosen]
        _step(model, pairs[0][1])  # warm up, and try the model on a packed row
        _step(model, pairs[0][0])
        # [repetitions, batches, 2]: the two kinds of a batch one right after the other, so that both meet the same
        # noise
        times = np.array(
            [[[_seconds(_step, model, batch) for batch in pair] for pair in pairs] for _ in range(repetitions)]
        )
        least, middle = times.min(axis=0).sum(axis=0).tolist(), np.median(times, axis=0).sum(axis=0).tolist()
        results[str(size)] = {
            "padded_s": {"min": least[0], "median": middle[0]},
            "packed_s": {"min": least[1], "median": middle[1]},
            "ratio": {"min": least[0] / least[1], "median": middle[0] / middle[1]},
            "token_ratio": sum(a.input_ids.numel() for a, _ in pairs) / sum(b.input_ids.numel() for _, b in pairs),
            "needed": NEEDED.get(size),
        }
    return {
        "repetitions": repetitions,
        "sequences": sequences,
        "mean_tokens": float(rows.lengths.mean()),
        "batch": results,
    }


def _step(model: ResponseModel, batch: Batch) -> None:
    model.zero_grad(set_to_none=True)
    logits = model(batch.input_ids, batch.attention_mask, batch.positions, batch.position_ids)
    torch.nn.functional.cross_entropy(logits, batch.labels).backward()


def _seconds(function: Callable[..., None], *arguments: Any) -> float:
    begin = time.process_time()
    function(*arguments)
    return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time of padded over packed batches")
    parser.add_argument("--batch", type=int, nargs="+", default=[2, 4, 8], help="sequences in a batch")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--sequences", type=int, default=24, help="in all; a multiple of every batch")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    args = parser.parse_args()
    result = measure(args.batch, args.repetitions, args.sequences)
    print("batch  padded s  packed s   time ratio: min  median  needed   tokens")
    for size, numbers in result["batch"].items():
        ratio, needed = numbers["ratio"], f"{numbers['needed']:.2f}" if numbers["needed"] else "-"
        seconds = f"{numbers['padded_s']['min']:9.2f} {numbers['packed_s']['min']:9.2f}"
        print(
            f"{size:>5} {seconds} {ratio['min']:17.2f} {ratio['median']:7.2f} {needed:>7} {numbers['token_ratio']:8.2f}"
        )
    if args.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
