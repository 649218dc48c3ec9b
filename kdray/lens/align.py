"""From annotated text to tokens: where the context ends in a prompt, and which response tokens are hallucinated.

Offsets come from decoding the ids as they are, token by token. Ids that were stored are never made again from text.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from kdray.artifacts.files import read_json, reading
from kdray.data.example import Example
from kdray.data.tokenise import plain_prompt
from kdray.lens.annotations import Annotated, Sketch, sketch
from kdray.lens.ratios import Passage
from kdray.spec.errors import InputError
from kdray.store import io

INSTRUCTION = "Summarize the article in one sentence."  # for annotated texts that come without a prompt
HELD_BACK = "\N{REPLACEMENT CHARACTER}"  # a character of which some bytes are still to come


@dataclass(frozen=True)
class Aligned:
    """A passage, and for each token of its response whether it is hallucinated."""

    id: str
    document: Sketch
    passage: Passage
    hallucinated: tuple[bool, ...]


@dataclass(frozen=True)
class Problem:
    """A response that is left out, and why."""

    id: str
    reason: str


def align(
    rows: Iterable[Annotated],
    tokenizer: PreTrainedTokenizerBase,
    template: Any,
    max_words: int | None = 700,
    reads: int | None = None,
) -> tuple[list[Aligned], list[Problem]]:
    """The rows as tokens, and those that cannot be used: a span or the document is not found, or the lengths make no
    passage.

    `template` makes the prompts of rows that have none; there a document is cut at `max_words`. `reads` is the number
    of tokens that the model reads at once.
    """
    aligned, problems = [], []
    for row in rows:
        try:
            found = _align(row, tokenizer, template, max_words)
            if reads is not None and (length := len(found.passage.input_ids)) > reads:
                raise InputError("passage", f"{length} tokens", f"the model reads {reads}")
            aligned.append(found)
        except InputError as error:
            problems.append(Problem(row.id, str(error)))
    return aligned, problems


def make_passage(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    document: str,
    output: Sequence[int],
    thought: Sequence[int] = (),
) -> Passage:
    """The passage of stored ids. A `thought` before the answer is neither context nor response: what follows the
    document is new.

    Raises:
        InputError: the document is not in the prompt, or the lengths make no passage.
    """
    return Passage(
        [*prompt, *thought, *output], context_length(tokenizer, prompt, document), len(prompt) + len(thought)
    )


def context_length(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], document: str) -> int:
    """How many of the prompt's tokens are context: those up to the one in which the document's last occurrence ends.

    Raises:
        InputError: the document is not in the prompt.
    """
    pieces = decode_pieces(tokenizer, prompt)
    _, end = place_of(document, "".join(pieces))
    starts = itertools.accumulate(map(len, pieces[:-1]), initial=0)
    return sum(start < end for start in starts)


def place_of(document: str, text: str) -> tuple[int, int]:
    """Where the document's last occurrence in a prompt's text begins and ends, without the space around it.

    Raises:
        InputError: it is not in there.
    """
    document = document.strip()
    if document not in text:
        document = unicodedata.normalize("NFC", document)  # as some tokenizers do
    begin = text.rfind(document) if document else -1
    if begin < 0:
        raise InputError(
            "document", "it is not in the prompt" if document else "empty", "a lookback ratio needs a context"
        )
    return begin, begin + len(document)


def mark_tokens(
    tokenizer: PreTrainedTokenizerBase, output: Sequence[int], response: str, spans: Sequence[tuple[int, int]]
) -> tuple[bool, ...]:
    """For each output token whether it has a character, not counting white space, in one of `spans` of `response`.

    Raises:
        InputError: the ids do not give the response.
    """
    pieces = decode_pieces(tokenizer, output)
    text = "".join(pieces)
    shift = text.find(response.strip()) - (len(response) - len(response.lstrip()))
    if response.strip() not in text:
        raise InputError("output_ids", f"they give {text[:40]!r}", f"not the response {response[:40]!r}")
    inside = [False] * (len(text) + 1)
    for begin, end in spans:
        for place in range(begin, end):
            if not response[place].isspace():  # which at either end of the response may have no token
                inside[place + shift] = True
    ends = list(itertools.accumulate(map(len, pieces)))
    # A token that is only the first bytes of a character shares the fate of the one that ends it.
    return tuple(
        any(inside[end - len(piece) : end]) if piece else inside[end] for piece, end in zip(pieces, ends, strict=True)
    )


def mark_characters(
    tokenizer: PreTrainedTokenizerBase, output: Sequence[int], response: str, marked: Sequence[bool]
) -> list[tuple[int, int]]:
    """The stretches [begin, end) of `response` that the marked ones of the output tokens give, without white space
    around them; none where the ids do not give the response.
    """
    pieces = decode_pieces(tokenizer, output)
    shift = "".join(pieces).find(response)
    if shift < 0:
        return []
    edges = list(itertools.accumulate(map(len, pieces), initial=-shift))
    spans = []
    for is_marked, tokens in itertools.groupby(range(len(pieces)), key=lambda token: marked[token]):
        run = list(tokens)
        begin, end = max(edges[run[0]], 0), edges[run[-1] + 1]
        text = response[begin : max(end, 0)]
        if is_marked and text.strip():
            begin += len(text) - len(text.lstrip())
            spans.append((begin, begin + len(text.strip())))
    return spans


def write_aligned(rows: Sequence[Aligned], path: Path) -> None:
    """Keep aligned rows in a file."""
    io.put_json(path, [asdict(row) for row in rows])


def read_aligned(path: Path) -> list[Aligned]:
    """What `write_aligned` kept.

    Raises:
        InputError: the file is missing or damaged.
    """
    with reading(path):
        return [
            Aligned(row["id"], tuple(row["document"]), Passage(**row["passage"]), tuple(row["hallucinated"]))
            for row in read_json(path)
        ]


def decode_pieces(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The text that each token adds; together the text of all."""

    def decode(part: Sequence[int]) -> str:
        text = tokenizer.decode(list(part), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    pieces, settled, begin = [], "", 0
    for end in range(1, len(ids) + 1):
        text = decode(ids[begin:end])
        if text.endswith(HELD_BACK) and end < len(ids):
            pieces.append("")
            continue
        pieces.append(text[len(settled) :])
        # Decoding goes on from the last token that is a text by itself, since a tokenizer may treat the first one in
        # its own way.
        settled = decode(ids[end - 1 : end])
        if settled.endswith(HELD_BACK):
            settled = text
        else:
            begin = end - 1
    return pieces


def _align(row: Annotated, tokenizer: PreTrainedTokenizerBase, template: Any, max_words: int | None) -> Aligned:
    if row.unfound:
        raise InputError("spans", f"{row.unfound[0]!r} is not in the response", "its labels are not known")
    document = row.document
    if row.input_ids is None:
        if row.prompt is None:
            document = " ".join(document.split()[:max_words])
            prompt = template(Example(INSTRUCTION, document, row.response), tokenizer)
            input_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        else:
            input_ids = plain_prompt(row.prompt[0] + document + row.prompt[1], tokenizer)
    else:
        input_ids = row.input_ids
    output = (
        row.output_ids
        if row.output_ids is not None
        else tokenizer(row.response.strip(), add_special_tokens=False)["input_ids"]
    )
    passage = make_passage(tokenizer, input_ids, document, output)
    return Aligned(row.id, sketch(row.document), passage, mark_tokens(tokenizer, output, row.response, row.spans))
