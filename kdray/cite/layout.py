"""A prompt as token ids from which sentences of its document can be left out, and an answer's tokens by statement.

What a model was asked stays as it was, token for token: sentences are left out of the stored ids, and nothing is made
again from text. A token belongs to the sentence of its first character that is no space, so that the space before a
sentence goes with it; one that reaches out of the document stays.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from kdray.data.sentences import spans
from kdray.lens.align import decode_pieces, place_of
from kdray.spec.errors import InputError

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Laid:
    """A prompt: what stands before the document, the document's sentences, and what stands behind it."""

    head: Ids
    sentences: tuple[Ids, ...]
    tail: Ids
    texts: tuple[str, ...]  # of the sentences

    def prompt(self, kept: Collection[int]) -> list[int]:
        """The prompt with these of the sentences alone, by their places from 0."""
        inside = [token for place, ids in enumerate(self.sentences) if place in kept for token in ids]
        return [*self.head, *inside, *self.tail]

    @property
    def all(self) -> frozenset[int]:
        """The places of all sentences."""
        return frozenset(range(len(self.sentences)))

    def within(self, room: int | None) -> Laid:
        """The prompt without the document's last sentences, as many as it takes to have at most `room` tokens."""
        if room is None:
            return self
        left = room - len(self.head) - len(self.tail)
        ends = list(itertools.accumulate(map(len, self.sentences)))
        return self.first(bisect_right(ends, left))

    def first(self, count: int) -> Laid:
        """The prompt with so many sentences of the document, from its beginning."""
        return replace(self, sentences=self.sentences[:count], texts=self.texts[:count])


@dataclass(frozen=True)
class Said:
    """A statement of an answer as token ids, and what the answer said before it."""

    before: Ids
    ids: Ids


def lay_out(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], document: str, thought: Sequence[int] = ()
) -> Laid:
    """The stored prompt of a document, and what the model thought before it answered. A sentence without a token of its
    own is none.

    Raises:
        InputError: the document is not in the prompt, or is all of it.
    """
    pieces = decode_pieces(tokenizer, prompt)
    text = "".join(pieces)
    begin, end = place_of(document, text)
    found = [(begin + first, begin + last) for first, last in spans(text[begin:end])]
    edges = list(itertools.accumulate(map(len, pieces), initial=0))
    owners = _owners(pieces, [last for _, last in found])
    n_head = sum(edge < begin for edge in edges[:-1])
    n_tail = sum(edge > end or owner == len(found) for edge, owner in zip(edges[1:], owners, strict=True))
    inside = range(n_head, len(pieces) - n_tail)
    parts: list[list[int]] = [[] for _ in found]
    for place in inside:
        parts[owners[place]].append(prompt[place])
    kept = [i for i, part in enumerate(parts) if part]
    laid = Laid(
        tuple(prompt[:n_head]),
        tuple(tuple(parts[i]) for i in kept),
        (*prompt[len(pieces) - n_tail :], *thought),
        tuple(text[slice(*found[i])] for i in kept),
    )
    if not laid.head and not laid.tail:
        raise InputError("document", "it is the whole prompt", "without it nothing would be left to answer")
    return laid


def statements_of(
    tokenizer: PreTrainedTokenizerBase, output: Sequence[int], answer: str
) -> tuple[list[str], list[Ids]]:
    """The sentences of an answer's text, and the tokens of each; what the ids have behind the text, such as a stop, is
    none of them.
    """
    pieces = decode_pieces(tokenizer, output)
    text = "".join(pieces)
    begin = max(text.find(answer), 0)
    end = begin + len(answer) if answer in text else len(text)
    found = [(begin + first, begin + last) for first, last in spans(text[begin:end])]
    parts: list[list[int]] = [[] for _ in found]
    for token, owner in zip(output, _owners(pieces, [last for _, last in found]), strict=True):
        if owner < len(found):
            parts[owner].append(token)
    kept = [i for i, part in enumerate(parts) if part]
    return [text[slice(*found[i])] for i in kept], [tuple(parts[i]) for i in kept]


def _owners(pieces: Sequence[str], ends: Sequence[int]) -> list[int]:
    """For each token the first stretch that ends behind its first character that is no space; behind all of them the
    number of stretches.
    """
    starts = itertools.accumulate(map(len, pieces), initial=0)
    leads = (start + len(piece) - len(piece.lstrip()) for start, piece in zip(starts, pieces, strict=False))
    return [bisect_right(ends, lead) for lead in leads]
