"""What lm-eval calls to score a summary in the tasks of this folder: kdray's ROUGE, and whether there is a summary at
all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kdray.score.answers import Answer
from kdray.score.metrics.rouge import rouge


def xsum(row: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
    """Scores of one summary, in percent. Raises: ValueError: ROUGE does not see the reference."""
    return _score(results[0], row["summary"])


def cnn_dailymail(row: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
    """Scores of one summary, in percent."""
    return _score(results[0], row["highlights"])


def _score(text: str, reference: str) -> dict[str, float]:
    found = rouge([Answer(text.strip(), references=[reference] if reference.strip() else [])])[0]
    if "error" in found:
        raise ValueError(found["error"])
    return found | {"empty": 100.0 * (not text.strip())}
