"""Words of an answer that its source has too, of all its words, in percent."""

from collections.abc import Sequence

from kdray.score.answers import Answer
from kdray.spec import declare

DECLARED = declare.Metric(version=1, scores=("seen",), needs=("source",))


def seen_words(answers: Sequence[Answer], *, lower: bool = True) -> list[dict[str, float]]:
    """`lower`: without regard to case; an answer without a word has no value."""
    return [
        _seen(answer.text.lower(), answer.source.lower()) if lower else _seen(answer.text, answer.source)
        for answer in answers
    ]


def _seen(text: str, source: str) -> dict[str, float]:
    words, there = text.split(), set(source.split())
    return {"seen": 100 * sum(word in there for word in words) / len(words)} if words else {}
