"""The solved examples in a prompt: those that lm-eval draws, but never the question that is asked, nor its double.

A draw that may stand is left as it is, and lm-eval's dice are not touched, so that every other prompt is lm-eval's own.
What may not stand is replaced by dice of the question's own.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from lm_eval.api.samplers import ContextSampler, FirstNSampler
from lm_eval.defaults import DEFAULT_OTHER_SEED

from kdray.score.documents import fault, question_text
from kdray.spec.errors import InputError


class Examples:
    """Stands in the place of a task's sampler. `asked` is the document whose prompt is being written.

    `own`: the examples are the user's data, or the very questions of the test. They are then looked at for a right
    answer, and too few are refused; of those that a benchmark brings along, a question gets as many as are left.
    """

    def __init__(self, task: Any, sampler: ContextSampler, own: bool, field: str) -> None:
        self.task, self.sampler, self.own, self.field = task, sampler, own, field
        self.asked: dict[str, Any] = {}
        self.pool = sampler.fewshot_docs()
        self._texts: dict[int, str] = {}  # by the documents' ids, which are theirs as long as the pool keeps them
        self._good: dict[int, bool] = {}

    def set_rnd(self, seed: int | None) -> None:
        self.sampler.set_rnd(seed)

    def sample(self, n: int, eval_doc: dict[str, Any] | None = None, **_: Any) -> Sequence[dict[str, Any]]:
        """`n` solved examples for the question that is asked.

        Raises:
            InputError: there are not so many.
        """
        asked = question_text(self.task, self.asked, None, self.own)
        try:  # lm-eval draws one more than it shows if the question may be among them, and gives up where there is none
            drawn = self.sampler.sample(n, eval_doc=eval_doc)
        except (ValueError, AssertionError):
            drawn = []
        kept = [example for example in drawn if self._may_stand(example, asked)]
        return kept if len(kept) == n else [*kept, *self._others(n, kept, asked)]

    def _others(self, n: int, kept: Sequence[dict[str, Any]], asked: str) -> list[dict[str, Any]]:
        """What the examples that are kept lack of `n`, with questions that are not among them yet."""
        seen, others = {self._text(example) for example in kept}, []
        for example in self.pool:
            if self._text(example) not in seen and self._may_stand(example, asked):
                seen.add(self._text(example))
                others.append(example)
        wanted = n - len(kept)
        if wanted > len(others) and (self.own or len(self.pool) < n):
            found = f"{n} solved examples, where a question finds {len(kept) + len(others)} others with a right answer"
            raise InputError(f"{self.field}.shots", found, "ask for fewer, or name a larger shots_source")
        if isinstance(self.sampler, FirstNSampler):
            return others[:wanted]
        return random.Random(f"{DEFAULT_OTHER_SEED} {asked}").sample(others, min(wanted, len(others)))

    def _may_stand(self, example: dict[str, Any], asked: str) -> bool:
        if self._text(example) == asked:
            return False
        if self.own and id(example) not in self._good:
            self._good[id(example)] = not fault(self.task, example)
        return not self.own or self._good[id(example)]

    def _text(self, example: dict[str, Any]) -> str:
        if id(example) not in self._texts:
            template = self.task.fewshot_cfg.doc_to_text
            self._texts[id(example)] = question_text(self.task, example, template, self.own)
        return self._texts[id(example)]
