"""The instruction template of Stanford Alpaca, which MiniLLM and the smoothed-KD paper use for plain models."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from kdray.data.example import Example

VERSION = 1


def alpaca(example: Example, tokenizer: PreTrainedTokenizerBase) -> str:
    """The prompt up to where the response begins; `tokenizer` is not needed."""
    if example.context:
        return (
            "Below is an instruction that describes a task, paired with an input that provides further context. "
            "Write a response that appropriately completes the request.\n\n"
            f"### Instruction:\n{example.instruction}\n\n### Input:\n{example.context}\n\n### Response:\n"
        )
    return (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        f"### Instruction:\n{example.instruction}\n\n### Response:\n"
    )
