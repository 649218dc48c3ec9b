"""Exact match and token F1 as SQuAD and HotpotQA take them, in percent; of several right answers the best."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from kdray.score.answers import Answer

VERSION = 1
SCORES = ("f1", "em")
NEEDS = ("reference", "short")
VERDICTS = {"yes", "no", "noanswer"}  # HotpotQA: they share no tokens with a longer answer


def exact_match(answers: Sequence[Answer]) -> list[dict[str, float]]:
    """Agreement of every answer with its references."""
    scored = []
    for answer in answers:
        pairs = [(normalise(answer.text), normalise(reference)) for reference in answer.references]
        scored.append({"f1": 100 * max(_f1(*pair) for pair in pairs), "em": 100 * max(float(a == b) for a, b in pairs)} if pairs else {})
    return scored


def normalise(text: str) -> str:
    """Lower case, without punctuation, articles and more space than one between words."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _f1(answer: str, reference: str) -> float:
    ours, theirs = answer.split(), reference.split()
    if answer != reference and VERDICTS & {answer, reference}:
        return 0.0
    common = (Counter(ours) & Counter(theirs)).total()
    if not common:
        return float(ours == theirs)  # both may be empty
    precision, recall = common / len(ours), common / len(theirs)
    return 2 * precision * recall / (precision + recall)
