"""BERTScore F1 (Zhang et al. 2020, arXiv 1904.09675) with any encoder, in percent, without IDF weights or rescaling.

Each token of one text is matched to the most similar token of the other, by the cosine of their hidden states at
`layer`: precision is the mean over the answer's tokens, recall over the reference's. As in the authors' package, the
special tokens can be matched but do not count. Of several references the best F1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor

from kdray.score.answers import Answer, Given
from kdray.score.consistency import batched, unread
from kdray.score.encoder import Encoder
from kdray.score.tokenizers import NO_REFERENCE
from kdray.spec import declare
from kdray.spec.errors import InputError

DECLARED = declare.Metric(
    version=2,
    scores=("bert_f1", "bert_p", "bert_r"),
    needs=("reference",),
    slow=True,
    models={"model": True},
)


class BERTScore:
    """Matches the tokens of answers and references."""

    def __init__(
        self,
        given: Given,
        *,
        model: str = "hf:FacebookAI/roberta-large",
        layer: PositiveInt = 17,
        batch: PositiveInt = 16,
    ) -> None:
        """`layer`: whose hidden states are compared, 17 being the authors' choice for roberta-large."""
        self.encoder, self.layer, self.batch = (
            Encoder(given.models["model"], given.device, "score.metrics.bertscore.model"),
            layer,
            batch,
        )
        if layer > self.encoder.layers:
            raise InputError(
                "score.metrics.bertscore.layer", f"{layer}", f"the encoder has layers 1 to {self.encoder.layers}"
            )

    def __call__(self, answers: Sequence[Answer]) -> list[dict[str, Any]]:
        problems = [self._problem(answer) for answer in answers]
        counts = [
            len(a.references) if a.text and not problem else 0 for a, problem in zip(answers, problems, strict=True)
        ]
        pairs = [
            (answer.text, reference)
            for answer, count in zip(answers, counts, strict=True)
            for reference in answer.references[:count]
        ]
        scores = batched(pairs, self.batch, lambda pair: max(map(len, pair)), self.scores)
        best: list[dict[str, Any]] = []
        start = 0
        for problem, count in zip(problems, counts, strict=True):
            zero: dict[str, Any] = dict.fromkeys(DECLARED.scores, 0.0)
            best.append(problem or max(scores[start : start + count], key=lambda score: score["bert_f1"], default=zero))
            start += count
        return best

    def _problem(self, answer: Answer) -> dict[str, str]:
        if not answer.references:
            return {"error": f"bertscore: {NO_REFERENCE}"}
        return unread(self.encoder.tokenizer, answer.text, *answer.references)

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[dict[str, float]]:
        """Precision, recall and F1 of every (answer, reference)."""
        ours, theirs = (self.encoder.states([pair[side] for pair in pairs], self.layer) for side in (0, 1))
        normalise = torch.nn.functional.normalize
        cosine = normalise(ours[0], dim=-1) @ normalise(theirs[0], dim=-1).transpose(1, 2)  # [B, T answer, T reference]
        cosine = cosine.masked_fill(~(ours[1][:, :, None] & theirs[1][:, None, :]), -1.0)
        precision, recall = _mean(cosine.amax(2), ours[2]), _mean(cosine.amax(1), theirs[2])
        total = precision + recall
        f1 = torch.where(total == 0, 0.0, 2 * precision * recall / total)
        columns = [(100 * column).tolist() for column in (f1, precision, recall)]
        return [dict(zip(DECLARED.scores, row, strict=True)) for row in zip(*columns, strict=True)]


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """[B] means of [B, T] over the counted tokens; 0 where there are none."""
    return (values * counted).sum(1) / counted.sum(1).clamp(min=1)
