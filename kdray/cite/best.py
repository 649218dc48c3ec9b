"""Citations that a model writes behind the statements of an answer, and the best of several: SelfCite's best-of-N
sampling (section 5.3.3, algorithm 1).

The model is shown the prompt that it has answered with a mark before every sentence of the document and an instruction
behind it, and then its own answer, statement by statement. Behind `<cite>` it writes a citation as it writes its
answer, the `plain` one, and N others, drawn more evenly, of which the one with the highest reward is the `best`. The
plain one stands in the context of the statements that follow.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from kdray.cite.format import Span, Statement, parse_cites, write_cites
from kdray.cite.layout import Ids, Laid, Said
from kdray.cite.reward import Cited, Reader, Reward, rewards
from kdray.models.generation import draw, ends_of, uniforms

INSTRUCTION = (
    "\n\nThe sentences above are marked <C1>, <C2>, ... Answer in statements and cite behind each the sentences that it"
    " is based on, as in: <statement>It rained. <cite>[2-2][5-6]</cite></statement>"
)
OPEN, CITE, CLOSE = "<statement>", " <cite>", "</cite>"
SHUT = f"{CLOSE}</statement>"


@dataclass(frozen=True)
class Manner:
    """How tokens are drawn."""

    temperature: float
    top_p: float | None


@dataclass(frozen=True)
class Candidates:
    """How citations are drawn: one as `plain`, `count` as `varied`; of at most `longest` tokens, and kept for the best
    only if it is of one sentence or the sentences have at most `limit` tokens.
    """

    count: int
    plain: Manner
    varied: Manner
    longest: int
    limit: int
    seed: int


@dataclass(frozen=True)
class Candidate:
    """What can be read of what a model wrote behind `<cite>`; `sound`: it closed the tag, and all of it can be."""

    spans: tuple[Span, ...]
    sound: bool

    @property
    def cited(self) -> Cited:
        """The places of the sentences, from 0."""
        return frozenset(Statement("", self.spans).sentences)


@dataclass(frozen=True)
class CitedStatement:
    """A statement of `n_tokens` tokens with its citations and their rewards; `best` is the place of one of
    `candidates`.
    """

    text: str
    n_tokens: int
    plain: Candidate
    plain_reward: Reward
    candidates: tuple[Candidate, ...]
    rewards: tuple[Reward, ...]
    best: int


class Writer:
    """Writes the prompts of citations in a model's tokens, each piece of text by itself."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer: Any = tokenizer

    def ids(self, text: str) -> Ids:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def marked(self, laid: Laid) -> Laid:
        """The prompt with marks before its sentences, and the instruction behind the document."""
        sentences = tuple((*self.ids(f"<C{i}>"), *ids) for i, ids in enumerate(laid.sentences, 1))
        return replace(laid, sentences=sentences, tail=(*self.ids(INSTRUCTION), *laid.tail))

    def asks(self, statement: Ids) -> Ids:
        """A statement up to where its citations begin."""
        return (*self.ids(OPEN), *statement, *self.ids(CITE))

    def cites(self, spans: Sequence[Span]) -> Ids:
        """Citations up to the end of their statement."""
        return self.ids(f"{write_cites(spans)}{SHUT}")

    def within(self, laid: Laid, statements: Sequence[Ids], longest: int, window: int | None) -> Laid:
        """The prompt without the document's last sentences, as many as it takes so that with its marks, the statements
        and a citation of `longest` tokens behind each it has at most `window` tokens.
        """
        if window is None:
            return laid
        said = sum(len(self.asks(ids)) + longest + len(self.ids(SHUT)) for ids in statements)
        return laid.first(len(self.marked(laid).within(window - said).sentences))


def cite(
    model: PreTrainedModel,
    read: Reader,
    writer: Writer,
    laid: Laid,
    statements: Sequence[tuple[str, Ids]],
    how: Candidates,
) -> list[CitedStatement]:
    """The statements of an answer, each a text and its tokens, with their citations.

    All random numbers follow from the prompt, the answer and the seed.
    """
    context, before = tuple(writer.marked(laid).prompt(laid.all)), Ids()
    ends = ends_of(model.generation_config, writer.tokenizer)
    found = []
    for text, ids in statements:
        context += writer.asks(ids)
        plain, *candidates = (
            _candidate(each, len(laid.sentences)) for each in drawn(model, context, how, writer.tokenizer, ends)
        )
        [[of_plain, *of_candidates]] = rewards(
            read, laid, [Said(before, ids)], [[plain.cited, *(each.cited for each in candidates)]]
        )
        totals = [each.total for each in of_candidates]
        kept = best_of([each.cited for each in candidates], totals, [len(part) for part in laid.sentences], how.limit)
        found.append(CitedStatement(text, len(ids), plain, of_plain, tuple(candidates), tuple(of_candidates), kept))
        context += writer.cites(plain.spans)
        before += ids
    return found


def best_of(candidates: Sequence[Cited], rewards: Sequence[float], lengths: Sequence[int], limit: int) -> int:
    """The place of the candidate with the highest reward among those of one sentence or at most `limit` tokens; of
    equal ones the first, and the first of all where every one is too long.

    `lengths`: tokens of the document's sentences.
    """
    allowed = [len(cited) <= 1 or sum(lengths[place] for place in cited) <= limit for cited in candidates]
    scored = [reward if fits else -math.inf for reward, fits in zip(rewards, allowed, strict=True)]
    return max(range(len(scored)), key=scored.__getitem__)


@torch.inference_mode()
def drawn(
    model: PreTrainedModel,
    context: Sequence[int],
    how: Candidates,
    tokenizer: PreTrainedTokenizerBase,
    ends: Collection[int],
) -> list[str]:
    """What the model writes behind a context, which is read once, until it ends its answer or has written `</cite>`:
    the plain continuation, then the varied ones.
    """
    cache, pending = DynamicCache(config=model.config), torch.tensor([list(context)], device=model.device)
    numbers = uniforms(context, how.seed, 1 + how.count, how.longest).to(model.device)  # so that more only add to them
    written: list[list[int]] = [[] for _ in range(1 + how.count)]
    texts = [""] * len(written)
    for step in range(how.longest):
        logits = model(input_ids=pending, past_key_values=cache, logits_to_keep=1).logits[:, -1].float()
        if step == 0:
            cache.batch_repeat_interleave(len(written))
            logits = logits.expand(len(written), -1)
        tokens = _drawn(logits, numbers[:, step], how)
        for i, token in enumerate(tokens.tolist()):
            if CLOSE not in texts[i] and not (written[i] and written[i][-1] in ends):
                written[i].append(token)
                texts[i] = str(tokenizer.decode(written[i], skip_special_tokens=True))
        if all(CLOSE in text or ids[-1] in ends for text, ids in zip(texts, written, strict=True)):
            break
        pending = tokens[:, None]
    return texts


def _drawn(logits: Tensor, numbers: Tensor, how: Candidates) -> Tensor:
    """[1 + K, V] logits and [1 + K] numbers -> [1 + K] tokens."""
    plain = draw(logits[:1], numbers[:1], how.plain.temperature, how.plain.top_p)
    return torch.cat([plain, draw(logits[1:], numbers[1:], how.varied.temperature, how.varied.top_p)])


def _candidate(text: str, n_sentences: int) -> Candidate:
    inside, closed, _ = text.partition(CLOSE)
    spans, findings = parse_cites(inside, n_sentences)
    return Candidate(spans, bool(closed) and not findings)
