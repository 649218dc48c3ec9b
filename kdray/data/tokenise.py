"""From examples to token ids: prompt and response tokenised jointly, cut at the prompt's length, EOS appended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from kdray.data.example import Document, Example

Template = Callable[[Example, PreTrainedTokenizerBase], str]


@dataclass
class Beyond:
    """The lengths in tokens of prompts that are dropped and of rows that are cut, as far as `tokenise` has been."""

    prompts: list[int] = field(default_factory=list)
    wholes: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Tokenised:
    """A row's token ids; the first `n_prompt` are the prompt, the others are learned."""

    input_ids: list[int]
    n_prompt: int
    truncated: bool = False


def tokenise(
    examples: Sequence[Example | Document],
    template: Template,
    tokenizer: PreTrainedTokenizerBase,
    max_prompt: int,
    max_length: int,
    before: str = "",
    beyond: Beyond | None = None,
    decoder: int | None = None,
) -> list[list[Tokenised]]:
    """For each example the rows that it becomes: none if its prompt has more than `max_prompt` tokens or there is
    nothing to learn, one, or as many pieces as a document needs.

    The whole of an example is cut at `max_length` tokens (MiniLLM's rule): a response that is cut has no EOS, because
    it did not end there. Where a tokenizer merges over the border, the response is tokenised alone, so that training
    sees exactly the prompt that generation will start from. `before` stands before every response, and is learned with
    it. What the limits take is noted in `beyond`. For an encoder-decoder, whose `decoder` reads so many tokens, see
    `_tokenise_apart`.
    """
    beyond = Beyond() if beyond is None else beyond
    if decoder is not None:
        asked = [example for example in examples if isinstance(example, Example)]
        assert len(asked) == len(examples)  # check sees to that: a document has no prompt for an encoder
        return _tokenise_apart(asked, template, tokenizer, max_prompt, max_length, beyond, decoder)
    prompts = ["" if isinstance(example, Document) else template(example, tokenizer) for example in examples]
    learned = [
        example.text if isinstance(example, Document) else example.response and before + example.response
        for example in examples
    ]
    prompt_ids = _ids(prompts, tokenizer)
    fitting = [i for i, ids in enumerate(prompt_ids) if learned[i] and len(ids) <= max_prompt]
    beyond.prompts += [
        len(ids) for ids, text in zip(prompt_ids, learned, strict=True) if text and len(ids) > max_prompt
    ]
    whole_ids = _ids([prompts[i] + learned[i] for i in fitting], tokenizer)
    rows: list[list[Tokenised]] = [[] for _ in examples]
    for i, whole in zip(fitting, whole_ids, strict=True):
        prompt = prompt_ids[i]
        if whole[: len(prompt)] != prompt:
            whole = prompt + _ids([learned[i]], tokenizer)[0]
        if len(whole) == len(prompt) or whole[-1] != tokenizer.eos_token_id:  # a text may end in the token itself
            whole = [*whole, tokenizer.eos_token_id]
        if isinstance(examples[i], Document):
            rows[i] = _pieces(whole, max_length)
        else:
            rows[i] = [Tokenised(whole[:max_length], len(prompt), truncated=len(whole) > max_length)]
            beyond.wholes += [len(whole)] if rows[i][0].truncated else []
    return rows


def _tokenise_apart(
    examples: Sequence[Example],
    template: Template,
    tokenizer: PreTrainedTokenizerBase,
    max_prompt: int,
    max_length: int,
    beyond: Beyond,
    decoder: int,
) -> list[list[Tokenised]]:
    """As `tokenise`, but prompt and response each by itself, with the special tokens that the tokenizer puts around
    every text: the encoder reads one, and the decoder writes the other from its begin on, with nothing before it.

    The limits bound the same: a prompt, and both together; a response also ends where the decoder's window does.
    """
    prompts = marked([template(example, tokenizer) for example in examples], tokenizer)
    learned = [i for i, example in enumerate(examples) if example.response]
    fitting = [i for i in learned if len(prompts[i]) <= max_prompt]
    beyond.prompts += [len(prompts[i]) for i in learned if len(prompts[i]) > max_prompt]
    rows: list[list[Tokenised]] = [[] for _ in examples]
    for i, response in zip(fitting, marked([examples[i].response for i in fitting], tokenizer), strict=True):
        if response[-1] != tokenizer.eos_token_id:
            response = [*response, tokenizer.eos_token_id]
        room = min(max_length - len(prompts[i]), decoder)
        rows[i] = [Tokenised(prompts[i] + response[:room], len(prompts[i]), truncated=len(response) > room)]
        beyond.wholes += [len(prompts[i]) + len(response)] if rows[i][0].truncated else []
    return rows


def marked(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Texts with the special tokens that the tokenizer puts around each, once where a template has begun it already."""
    begin, found = beginning(tokenizer), list[list[int]]()
    for ids in tokenizer(texts, return_attention_mask=False)["input_ids"] if texts else []:
        twice = begin and ids[len(begin) : 2 * len(begin)] == begin
        found.append(ids[len(begin) :] if twice else ids)
    return found


def plain_prompt(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """A prompt that is a plain text, begun as the tokenizer begins every text (with its BOS token, or with nothing),
    once.

    What it puts behind every text, an EOS token, is left out: such a prompt is over before it is answered.
    """
    begin, ids = beginning(tokenizer), _ids([text], tokenizer)[0]
    return ids if ids[: len(begin)] == begin else [*begin, *ids]


def beginning(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that a tokenizer puts before every text."""
    marked, bare = (tokenizer(["a"], add_special_tokens=wanted)["input_ids"][0] for wanted in (True, False))
    return marked[: next((i for i in range(len(marked)) if marked[i : i + len(bare)] == bare), 0)]


def unended(tokenizer: Any) -> Any:
    """`tokenizer`, which from now on puts nothing behind a text: a context that ends so has ended before its answer."""
    marked, bare = (tokenizer(["a"], add_special_tokens=wanted)["input_ids"][0] for wanted in (True, False))
    if marked[-len(bare) :] != bare:
        names = tokenizer.convert_ids_to_tokens(beginning(tokenizer))
        single = " ".join([*(f"{name}:0" for name in names), "$A:0"])
        known = list(zip(names, beginning(tokenizer), strict=True))
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=single, pair=f"{single} $B:1", special_tokens=known
        )
    return tokenizer


def _pieces(whole: list[int], max_length: int) -> list[Tokenised]:
    """A document in pieces of at most `max_length` tokens. A piece's last token begins the next one: nothing predicts
    the first token of a row, so this is how each token but the document's first is learned exactly once."""
    starts = range(0, len(whole) - 1, max_length - 1)
    return [Tokenised(whole[start : start + max_length], n_prompt=1) for start in starts]


def _ids(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """One call for all texts: a call a text costs more than the tokenising of a short one."""
    return tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"] if texts else []
