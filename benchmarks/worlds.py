"""Models made from a configuration with random weights, and rows of random tokens: times do not depend on either."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kdray.artifacts.rows import SCHEMA, Rows, rows_writer, write_split

SHAPES = {
    # name: (hidden, intermediate, heads, key-value heads, vocabulary, tied)
    "tiny": (128, 384, 4, 2, 4096, True),
    "smollm2-135m": (576, 1536, 9, 3, 49_152, True),
    # The 1.5B's own is 151,936: this is its teacher's, since TRL, and the plain way, take logits of one width alone.
    "qwen2.5-1.5b": (1536, 8960, 12, 2, 152_064, True),
    "qwen2.5-7b": (3584, 18_944, 28, 4, 152_064, False),
}


def make_model(
    shape: str, layers: int, dtype: torch.dtype = torch.float32, seed: int = 0, device: str = "cpu"
) -> LlamaForCausalLM:
    """A Llama of this shape, made where it will be: a CPU needs minutes for the weights of a 7B."""
    hidden, intermediate, heads, kv_heads, vocabulary, tied = SHAPES[shape]
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        num_hidden_layers=layers,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        max_position_embeddings=4096,
        attn_implementation="sdpa",
    )
    torch.manual_seed(seed)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(previous)


def make_rows(folder: Path, lengths: Sequence[tuple[int, int]], vocabulary: int) -> Rows:
    """Prepared rows of random tokens, (prompt, response) tokens each; all are for training but the first."""
    generator = torch.Generator().manual_seed(0)
    records = []
    for i, (prompt, response) in enumerate(lengths):
        ids = torch.randint(0, vocabulary, (prompt + response,), generator=generator).tolist()
        records.append(
            {"source_row": i, "input_ids": ids, "n_prompt": prompt, "instruction": "", "context": "", "response": ""}
        )
    folder.mkdir(parents=True, exist_ok=True)
    with rows_writer(folder) as writer:
        writer.write_table(pa.Table.from_pylist(records, schema=SCHEMA))
    write_split(folder, [0], [])
    return Rows(folder)
