"""From an example to token ids: prompt and response tokenised jointly, cut at the prompt's length, EOS appended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from kdray.data.example import Example

Template = Callable[[Example, PreTrainedTokenizerBase], str]


@dataclass(frozen=True)
class Tokenised:
    """A row's token ids; the first `n_prompt` are the prompt, the others the response."""

    input_ids: list[int]
    n_prompt: int
    truncated: bool


def tokenise(
    example: Example, template: Template, tokenizer: PreTrainedTokenizerBase, max_prompt: int, max_length: int
) -> Tokenised | None:
    """None if the prompt has more than `max_prompt` tokens or the response is empty.

    The whole is cut at `max_length` tokens (MiniLLM's rule): a response that is cut has no EOS, because it did
    not end there. Where a tokenizer merges over the border, the response is tokenised alone, so that training
    sees exactly the prompt that generation will start from.
    """
    if not example.response:
        return None
    prompt_text = template(example, tokenizer)
    prompt = tokenizer(prompt_text, add_special_tokens=False)["input_ids"]
    if len(prompt) > max_prompt:
        return None
    whole = tokenizer(prompt_text + example.response, add_special_tokens=False)["input_ids"]
    if whole[: len(prompt)] != prompt:
        whole = prompt + tokenizer(example.response, add_special_tokens=False)["input_ids"]
    whole = [*whole, tokenizer.eos_token_id]
    return Tokenised(whole[:max_length], len(prompt), truncated=len(whole) > max_length)
