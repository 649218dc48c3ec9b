"""Log-likelihoods of several continuations of one context, which is computed once.

A multiple-choice question asks for the same context with every choice behind it. A plain pass computes the context
once a choice, and logits over the whole vocabulary at every position. Here a question is one row: its context, then
all its continuations, each at the positions right after the context and seeing only the context and itself (a tree,
as in arXiv 2305.09781); logits are computed only where a token is asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kdray.models.head import TOLERANCE, ResponseModel
from kdray.spec.errors import InputError

CHUNK = 512  # positions whose logits are there at a time
# In half precision, of a continuation's states: on SmolLM2 rounding is 0.002 of them, another continuation that is seen
# 0.11 and more, positions that are not heard 0.08 and more.
HALF = 0.05


@dataclass(frozen=True)
class Continued:
    """A context and the continuations that are asked about, as token ids; none is empty."""

    context: Sequence[int]
    continuations: Sequence[Sequence[int]]

    @cached_property
    def size(self) -> int:
        """Tokens in its row: nothing is predicted from a continuation's last one."""
        return len(self.context) + sum(len(c) - 1 for c in self.continuations)


class SharedPrefix:
    """A model that answers questions.

    Raises:
        InputError: the model does not keep continuations of one row apart, or its attention window is too short for
            them.
    """

    def __init__(self, model: ResponseModel) -> None:
        self.model, self.config = model, model.whole.config
        self.device, self.dtype = model.head.linear.weight.device, model.head.linear.weight.dtype
        # Ids from all over the vocabulary: the first ones are odd tokens, that rounding alone may change by 8%.
        ids = [7919 * i % self.config.vocab_size for i in range(1, 18)]
        probe = [Continued(ids[:5], [ids[5:8], ids[8:12]]), Continued(ids[12:15], [ids[15:]])]
        try:
            rows = self.states(probe).split([len(c) for question in probe for c in question.continuations])
        except (RuntimeError, TypeError, ValueError):  # whatever a model says to a mask of four dimensions
            raise self._refused("a model without a mask for every pair of tokens") from None
        for row, (context, c) in zip(rows, [(q.context, c) for q in probe for c in q.continuations], strict=True):
            alone = torch.tensor([[*context, *c[:-1]]], device=self.device)
            with torch.inference_mode():
                expected = model.backbone(input_ids=alone, use_cache=False).last_hidden_state[0, len(context) - 1 :]
            tolerance = TOLERANCE if self.dtype == torch.float32 else HALF
            if not (row.float() - expected.float()).norm() <= tolerance * expected.float().norm():
                raise self._refused("a model that mixes sequences of one row")

    @torch.inference_mode()
    def __call__(self, questions: Sequence[Continued]) -> list[list[tuple[float, bool]]]:
        """For every question and continuation: its log-likelihood in nats, and whether each of its tokens is the most
        likely one.

        Equal to one pass over context and continuation up to float error. Rows are padded to the longest question.
        """
        states = self.states(questions)
        lengths = [len(c) for question in questions for c in question.continuations]
        tokens = torch.tensor([token for q in questions for c in q.continuations for token in c], device=self.device)
        found, best = [], []
        for some, asked in zip(states.split(CHUNK), tokens.split(CHUNK), strict=True):
            logits = self.model.head(some).float()
            found.append(logits.gather(1, asked[:, None])[:, 0] - logits.logsumexp(1))
            best.append(logits.argmax(1) == asked)
        pairs = zip(torch.cat(found).double().split(lengths), torch.cat(best).split(lengths), strict=True)
        answers = iter([(float(logs.sum()), bool(hits.all())) for logs, hits in pairs])
        return [[next(answers) for _ in question.continuations] for question in questions]

    @torch.inference_mode()
    def states(self, questions: Sequence[Continued]) -> Tensor:
        """[N, d] hidden states after the final norm from which the N tokens of all continuations are predicted, in
        order.
        """
        longest = max(len(q.context) + len(c) - 1 for q in questions for c in q.continuations)
        window = getattr(self.config, "sliding_window", None)
        if window and longest > window:
            raise self._refused(f"a sequence of {longest} tokens and an attention window of {window}")
        width = max(question.size for question in questions)
        ids = torch.zeros(len(questions), width, dtype=torch.long)
        places, part = (
            torch.zeros_like(ids),
            torch.full_like(ids, -1),
        )  # part: 0 is the context, 1, 2, ... the continuations
        rows: list[int] = []
        columns: list[int] = []
        for row, question in enumerate(questions):
            end = len(question.context)
            ids[row, :end], places[row, :end], part[row, :end] = torch.tensor(question.context), torch.arange(end), 0
            for number, c in enumerate(question.continuations, 1):
                here = slice(end, end + len(c) - 1)
                ids[row, here] = torch.tensor(c[:-1], dtype=torch.long)
                places[row, here], part[row, here] = torch.arange(len(c) - 1) + len(question.context), number
                rows += [row] * len(c)
                columns += [len(question.context) - 1, *range(here.start, here.stop)]
                end = here.stop
        states = self.model.backbone(
            input_ids=ids.to(self.device),
            attention_mask=self._mask(part.to(self.device)),
            position_ids=places.to(self.device),
            use_cache=False,
        ).last_hidden_state
        return states[rows, columns]

    def _mask(self, part: Tensor) -> Tensor:
        """[B, T] parts -> [B, 1, T, T], to be added to attention scores: a token sees the context and its own part up
        to itself.
        """
        index = torch.arange(part.shape[1], device=part.device)
        seen = (index <= index[:, None]) & ((part[:, None, :] == 0) | (part[:, None, :] == part[:, :, None]))
        return torch.zeros(seen.shape, dtype=self.dtype, device=part.device).masked_fill_(
            ~seen, torch.finfo(self.dtype).min
        )[:, None]

    def _refused(self, found: str) -> InputError:
        return InputError(
            "score.likelihood", f"shared_prefix on {type(self.model.whole).__name__}: {found}", "use hflm"
        )
