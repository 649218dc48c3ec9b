"""Factual consistency by FactKB, a roberta-base that tells summaries that are true to their document from others:
P(true), in percent.

Summary and document are read as a pair of at most 512 tokens; where they are longer the document loses its end. The
repository of the weights has no tokenizer: it is roberta-base's, with which they were trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import PositiveInt
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kdray.models.weights import load_whole
from kdray.score.answers import Answer, Given
from kdray.score.consistency import batched, judged, unread
from kdray.spec import declare
from kdray.spec.errors import InputError
from kdray.spec.folders import window_in

DECLARED = declare.Metric(
    version=1,
    scores=("factkb",),
    needs=("source",),
    slow=True,
    models={"model": True, "base": False},
)
WINDOW = 512  # tokens of a pair


class FactKB:
    """Scores pairs of an answer and its source."""

    def __init__(
        self,
        given: Given,
        *,
        model: str = "hf:bunsenfeng/FactKB",
        base: str = "hf:FacebookAI/roberta-base",
        batch: PositiveInt = 8,
    ) -> None:
        """`model`: the weights; `base`: whose tokenizer they were trained with.

        Raises:
            InputError: it is no classifier of two labels.
        """
        self.device, self.batch = given.device, batch
        field = "score.metrics.factkb.model"
        self.model: Any = load_whole(AutoModelForSequenceClassification, given.models["model"], field)
        if (labels := self.model.config.num_labels) != 2:
            raise InputError(
                field, f"a classifier of {labels} labels", "it needs two: untrue, and true to the document"
            )
        self.model.to(given.device).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(given.models["base"], local_files_only=True)
        self.window = min(WINDOW, window_in(self.model.config.to_dict()) or WINDOW)

    def __call__(self, answers: Sequence[Answer]) -> list[dict[str, Any]]:
        problems = [
            (unread(self.tokenizer, a.source, a.text) or self.crowded(a.text)) if judged(a) else {} for a in answers
        ]
        pairs = [(a.text, a.source) for a, problem in zip(answers, problems, strict=True) if judged(a) and not problem]
        scores = iter(batched(pairs, self.batch, lambda pair: len(pair[0]) + len(pair[1]), self.probabilities))
        return [
            problem or ({"factkb": 100 * next(scores)} if judged(a) else {})
            for a, problem in zip(answers, problems, strict=True)
        ]

    def crowded(self, text: str) -> dict[str, str]:
        """{}, or an `error` where a summary leaves no token of the window to its document."""
        taken = len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        room = self.window - self.tokenizer.num_special_tokens_to_add(pair=True)
        return (
            {}
            if taken < room
            else {"error": f"factkb: an answer of {taken} tokens leaves no room for its document, of {room} for both"}
        )

    @torch.inference_mode()
    def probabilities(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """P(true) of every (summary, document)."""
        summaries, documents = (list(texts) for texts in zip(*pairs, strict=True))
        inputs = self.tokenizer(
            summaries, documents, truncation="only_second", max_length=self.window, padding=True, return_tensors="pt"
        ).to(self.device)
        return torch.softmax(self.model(**inputs).logits.float(), dim=-1)[:, 1].tolist()
