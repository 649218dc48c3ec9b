"""Hallucinated spans by LettuceDetect, a token classifier over source and answer (ModernBERT, trained on RAGTruth).

`lettuce` is the rate of answers without such a span, `lettuce_tok` the share of an answer's tokens outside of
them; the spans themselves, as character offsets into the answer, are kept with each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import PositiveInt
from transformers import AutoModelForTokenClassification, AutoTokenizer

from kdray.models.weights import load_whole
from kdray.score.answers import Answer, Given
from kdray.score.consistency import judged, unread
from kdray.spec import declare

DECLARED = declare.Metric(
    version=2,
    scores=("lettuce", "lettuce_tok"),
    needs=("source",),
    slow=True,
    spans=True,
    models={"model": True},
)
SUMMARY = "Summarize the following text:\n{source}\noutput:"
QUESTION = (
    "Briefly answer the following question:\n{question}\nBear in mind that your response should be strictly based on"
    " the following 1 passages:\npassage 1: {source}\nIn case the passages do not contain the necessary information to"
    ' answer the question, please reply with: "Unable to answer based on given passages."\noutput:'
)


class LettuceDetect:
    """Finds the spans of answers that their sources do not support."""

    def __init__(
        self,
        given: Given,
        *,
        model: str = "hf:KRLabsOrg/lettucedect-base-modernbert-en-v1",
        max_length: PositiveInt = 4096,
    ) -> None:
        """`max_length`: tokens of source and answer; the source is cut to fit."""
        self.device, self.max_length = given.device, max_length
        folder = given.models["model"]
        self.model: Any = load_whole(AutoModelForTokenClassification, folder, "score.metrics.lettucedetect.model")
        self.model.to(given.device).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def __call__(self, answers: Sequence[Answer]) -> list[dict[str, Any]]:
        return [unread(self.tokenizer, a.source, a.text) or self.score(a) if judged(a) else {} for a in answers]

    @torch.inference_mode()
    def score(self, answer: Answer) -> dict[str, Any]:
        """The numbers and spans of one answer."""
        prompt = (QUESTION if answer.question.endswith("?") else SUMMARY).format(
            question=answer.question, source=answer.source
        )
        inputs = self.tokenizer(
            prompt,
            answer.text,
            truncation="only_first",
            max_length=self.max_length,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        inside = [i for i, part in enumerate(inputs.sequence_ids(0)) if part == 1]
        offsets = [(int(start), int(end)) for start, end in inputs.pop("offset_mapping")[0, inside]]
        logits = self.model(**inputs.to(self.device)).logits[0, inside].float()
        if logits.isnan().any():
            return {"error": "lettucedetect: its model gives no numbers"}
        flagged = (torch.softmax(logits, dim=-1)[:, 1] > 0.5).tolist()
        spans = merge(offsets, flagged)
        share = 1 - sum(flagged) / max(len(flagged), 1)
        return {"lettuce": 100.0 * (not spans), "lettuce_tok": 100 * share, "spans": [list(span) for span in spans]}


def merge(offsets: Sequence[tuple[int, int]], flagged: Sequence[bool]) -> list[tuple[int, int]]:
    """Runs of flagged tokens as spans of characters."""
    spans: list[tuple[int, int]] = []
    before = False
    for (start, end), flag in zip(offsets, flagged, strict=True):
        if flag and before:
            spans[-1] = (spans[-1][0], end)
        elif flag:
            spans.append((start, end))
        before = flag
    return spans
