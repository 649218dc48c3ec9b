"""DoLa: tokens that the last layer makes likelier than an early layer does, chosen anew at every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveFloat
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdray.models.dola import ContrastLayers, dola_loglikelihoods, early_exits
from kdray.models.generation import generate_greedy
from kdray.score.prompts import Prompt
from kdray.spec import declare
from kdray.spec.parameters import Share

DECLARED = declare.Decoding(version=1, layers=True, choices=("layers", "plausibility"))


def dola(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    /,
    *,
    layers: Literal["low", "high"] | list[NonNegativeInt] = "low",
    plausibility: Share = 0.1,
    repetition_penalty: PositiveFloat = 1.2,
) -> list[list[int]]:
    """`layers`: even ones of the lower half (for long answers) or the upper half (for short ones), or a list of
    them.
    """
    ids = [prompt.input_ids for prompt in prompts]
    with early_exits(model, layers, lambda hidden: hidden[:, -1]) as exits:
        processor = ContrastLayers(exits, [len(prompt) for prompt in ids], plausibility, repetition_penalty)
        return generate_greedy(model, tokenizer, ids, max_new_tokens, processor=processor)


def likelihoods(
    model: PreTrainedModel, context: Sequence[int], choices: Sequence[Sequence[int]], /, *, softmax: bool, **params: Any
) -> list[tuple[float, bool]]:
    """For multiple choice; as the method's authors do, over the log-ratios there is a softmax unless a task wants
    none.
    """
    return dola_loglikelihoods(model, context, choices, **params, normalise=softmax)
