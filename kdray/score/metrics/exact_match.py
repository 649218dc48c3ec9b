"""Exact match and token F1 as SQuAD and HotpotQA take them, in percent; of several right answers the best.

`tokenizer: default` is SQuAD's normalisation, made for English: no ASCII punctuation, no articles, words between
spaces. `unicode` takes the words of any script, without any punctuation, characters where there are no spaces; articles
stay.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from kdray.data.words import tokens
from kdray.score.answers import Answer
from kdray.score.tokenizers import between_spaces, not_comparable, whole
from kdray.spec import declare

DECLARED = declare.Metric(version=2, scores=("f1", "em"), needs=("reference", "short"))
VERDICTS = {"yes", "no", "noanswer"}  # HotpotQA: they share no tokens with a longer answer


def exact_match(
    answers: Sequence[Answer], *, tokenizer: Literal["default", "unicode"] = "default"
) -> list[dict[str, Any]]:
    """Agreement of every answer with its references."""
    words, sees = (_words, whole) if tokenizer == "unicode" else (normalise, between_spaces)
    scored: list[dict[str, Any]] = []
    for answer in answers:
        if problem := not_comparable(answer.references, sees):
            scored.append({"error": f"exact_match: {problem}"})
            continue
        ours, theirs = words(answer.text), [words(reference) for reference in answer.references]
        pairs = [(ours, reference) for reference in theirs if reference]  # nothing but punctuation is no right answer
        scored.append({"f1": 100 * max(_f1(*pair) for pair in pairs), "em": 100 * max(float(a == b) for a, b in pairs)})
    return scored


def normalise(text: str) -> str:
    """Lower case, without punctuation, articles and more space than one between words; nothing but articles stays as it
    is.
    """
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split()) or " ".join(text.split())


def _words(text: str) -> str:
    return " ".join(tokens(text))


def _f1(answer: str, reference: str) -> float:
    ours, theirs = answer.split(), reference.split()
    if answer != reference and VERDICTS & {answer, reference}:
        return 0.0
    common = (Counter(ours) & Counter(theirs)).total()
    if not common:
        return 0.0
    precision, recall = common / len(ours), common / len(theirs)
    return 2 * precision * recall / (precision + recall)
