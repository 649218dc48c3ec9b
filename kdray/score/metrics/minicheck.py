"""Factual consistency by MiniCheck-Flan-T5: the rate of answers with every sentence supported, and the mean over
sentences.

A sentence is supported if some part of the source, of at most 500 words, makes it so with P >= 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import PositiveInt
from transformers import AutoTokenizer, T5ForConditionalGeneration

from kdray.data.sentences import split
from kdray.data.words import count_words
from kdray.models.weights import load_whole
from kdray.score.answers import Answer, Given
from kdray.score.consistency import batched, judged, unread
from kdray.spec import declare

DECLARED = declare.Metric(
    version=3,
    scores=("mini", "mini_mean"),
    needs=("source",),
    slow=True,
    models={"model": True},
)
NO, YES = 3, 209  # the tokens "0" and "1" that the model was taught to begin with


class MiniCheck:
    """Scores the sentences of answers against parts of their sources."""

    def __init__(
        self,
        given: Given,
        *,
        model: str = "hf:lytang/MiniCheck-Flan-T5-Large",
        words: PositiveInt = 500,
        batch: PositiveInt = 8,
    ) -> None:
        """`words`: the length of a part of the source."""
        self.device, self.words, self.batch = given.device, words, batch
        folder = given.models["model"]
        self.model: Any = load_whole(T5ForConditionalGeneration, folder, "score.metrics.minicheck.model")
        self.model.to(given.device).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def __call__(self, answers: Sequence[Answer]) -> list[dict[str, Any]]:
        problems = [unread(self.tokenizer, a.source, a.text) if judged(a) else {} for a in answers]
        parts = [
            [(part, claim) for claim in split(a.text) for part in cut(a.source, self.words)]
            if judged(a) and not problem
            else []
            for a, problem in zip(answers, problems, strict=True)
        ]
        flat = [pair for pairs in parts for pair in pairs]
        found = iter(batched(flat, self.batch, lambda pair: len(pair[0]) + len(pair[1]), self.probabilities))
        return [
            problem or _summary([(claim, next(found)) for _, claim in pairs])
            for pairs, problem in zip(parts, problems, strict=True)
        ]

    @torch.inference_mode()
    def probabilities(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """P(supported) of every (document, claim)."""
        texts = [f"predict: {document}{self.tokenizer.eos_token}{claim}" for document, claim in pairs]
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True).to(self.device)
        begin = torch.full((len(pairs), 1), self.model.config.decoder_start_token_id, device=self.device)
        logits = self.model(**inputs, decoder_input_ids=begin).logits[:, 0, [NO, YES]].float()
        return torch.softmax(logits, dim=-1)[:, 1].tolist()


def cut(text: str, words: int) -> list[str]:
    """`text` in parts of whole sentences with at most so many words; a longer sentence is a part of its own."""
    parts: list[list[str]] = [[]]
    for sentence in split(text):
        if parts[-1] and sum(map(count_words, parts[-1])) + count_words(sentence) > words:
            parts.append([])
        parts[-1].append(sentence)
    return [" ".join(part) for part in parts]


def _summary(found: list[tuple[str, float]]) -> dict[str, float]:
    if not found:
        return {}
    best: dict[str, float] = {}
    for claim, probability in found:
        known = best.get(claim, 0.0)
        best[claim] = probability if math.isnan(probability) else max(known, probability)  # a nan stays one
    return {"mini": 100.0 * (min(best.values()) >= 0.5), "mini_mean": 100 * sum(best.values()) / len(best)}
