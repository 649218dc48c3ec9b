"""What the citations of the decoding `selfcite` take, and how long the responses are that pairs are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kdray.cost import time
from kdray.cost.amounts import SENTENCE, Asked
from kdray.cost.cards import Card
from kdray.cost.decoder import Decoder

MARK = 4  # tokens of `<C12>` before a sentence
INSTRUCTION = 60  # tokens behind a document that ask for citations
TAGS = 20  # tokens of a statement's tags, with a citation between them
PASS = 8192  # tokens of a pass that reads for rewards


def statements(answer: float) -> float:
    """Of an answer of so many tokens: its sentences."""
    return max(1.0, answer / SENTENCE)


def marked(prompt: float) -> float:
    """Tokens of a prompt with marks before its sentences, and the instruction to cite."""
    return prompt * (1 + MARK / SENTENCE) + INSTRUCTION


def cited(answer: float) -> float:
    """Tokens of an answer with its citations between tags."""
    return answer + TAGS * statements(answer)


def of_citing(
    model: Decoder, card: Card, gpus: int, width: int, asked: Asked, params: Mapping[str, Any]
) -> tuple[float, float]:
    """Seconds and operations of the citations of all answers, one statement after the other.

    Of each the marked prompt is read, the plain citation and the candidates are written side by side, and for the
    rewards the prompt is read as it is and for every citation without its sentences and with them alone, each counted
    as a whole reading and none as a repeated one.
    """
    said = math.ceil(asked.rows * statements(asked.answer))
    drawn, longest = 1 + params["candidates"], params["cite_tokens"]
    context, whole = marked(asked.tokens) + asked.answer / 2, asked.tokens + asked.answer / 2
    readings = 1 + 2 * drawn
    at_once = max(1, min(readings, int(PASS // whole)))
    seconds = (
        time.of_reading(model, card, gpus, width, 1, said, context, 1)
        + time.of_answers(model, card, gpus, width, drawn, said * drawn, 0, longest, vllm=False)
        + time.of_reading(model, card, gpus, width, at_once, said * readings, whole, SENTENCE)
    )
    operations = (
        model.forward(said * context, context / 2, said)
        + model.forward(said * drawn * longest, 0, said * drawn * longest)
        + model.forward(said * readings * whole, whole / 2, said * readings * SENTENCE)
    )
    return seconds, operations
