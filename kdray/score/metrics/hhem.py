"""Factual consistency by HHEM-2.1-Open, Vectara's hallucination evaluation model: the rate of scores >= 0.5, and their
mean.

Its weights are a T5 encoder with a classifier on the first token, a flan-t5-base in size, so they are loaded as
that: the Python code that comes with them is not needed and never run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt
from safetensors.torch import load_file
from transformers import AutoTokenizer, T5Config, T5ForTokenClassification

from kdray.models.weights import refuse_incomplete
from kdray.score.answers import Answer, Given
from kdray.score.consistency import batched, judged, rate, unread
from kdray.spec import declare
from kdray.spec.weights import weight_files

DECLARED = declare.Metric(
    version=2,
    scores=("fc", "fc_mean"),
    needs=("source",),
    slow=True,
    models={"model": True, "base": False},
)
PROMPT = "<pad> Determine if the hypothesis is true given the premise?\n\nPremise: {source}\n\nHypothesis: {summary}"


class HHEM:
    """Scores pairs of a source text and an answer."""

    def __init__(
        self,
        given: Given,
        *,
        model: str = "hf:vectara/hallucination_evaluation_model@8e4a2e6e96c708cc76c2344f7e4757df2515292c",
        base: str = "hf:google/flan-t5-base",
        batch: PositiveInt = 8,
    ) -> None:
        """`model`: the weights; `base`: whose configuration and tokenizer they were trained with."""
        self.device, self.batch = given.device, batch
        self.model = load_hhem(given.models["model"], given.models["base"]).to(given.device)  # type: ignore[arg-type]
        self.tokenizer: Any = AutoTokenizer.from_pretrained(given.models["base"], local_files_only=True)

    def __call__(self, answers: Sequence[Answer]) -> list[dict[str, Any]]:
        problems = [unread(self.tokenizer, a.source, a.text) if judged(a) else {} for a in answers]
        pairs = [(a.source, a.text) for a, problem in zip(answers, problems, strict=True) if judged(a) and not problem]
        scores = iter(batched(pairs, self.batch, lambda pair: len(pair[0]) + len(pair[1]), self.probabilities))
        return [
            problem or (rate("fc", next(scores)) if judged(a) else {})
            for a, problem in zip(answers, problems, strict=True)
        ]

    @torch.inference_mode()
    def probabilities(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """P(consistent) of every (source, summary)."""
        texts = [PROMPT.format(source=source, summary=summary) for source, summary in pairs]
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True).to(self.device)
        logits = self.model(**inputs).logits[:, 0, :].float()
        return torch.softmax(logits, dim=-1)[:, 1].tolist()


def load_hhem(folder: Path, base: Path) -> T5ForTokenClassification:
    """The model in `folder`, built by the T5 configuration in `base`.

    Raises:
        InputError: the weights are not those of such a model.
    """
    field = "score.metrics.hhem.model"
    config = T5Config.from_pretrained(base, local_files_only=True, num_labels=2)
    model = T5ForTokenClassification(config).eval()
    weights = {
        key.removeprefix("t5."): value for path in weight_files(folder, field) for key, value in load_file(path).items()
    }
    own = model.state_dict()
    refuse_incomplete(
        {
            "missing_keys": {key for key in own.keys() - weights.keys() if not key.endswith("embed_tokens.weight")},
            "unexpected_keys": weights.keys() - own.keys(),
            "mismatched_keys": {
                (k, w.shape, own[k].shape) for k, w in weights.items() if k in own and w.shape != own[k].shape
            },
            "error_msgs": [],
        },
        field,
        f"{folder}, which is no HHEM-2.1,",
    )
    model.load_state_dict(weights, strict=False)
    return model
