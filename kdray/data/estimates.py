"""A score as {value, stderr, n}: a mean over examples, or over all their parts, with its standard error."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def mean(values: Sequence[float]) -> dict[str, float]:
    """The mean over examples; its standard error is 0 where there is one alone."""
    stderr = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return {"value": statistics.fmean(values), "stderr": stderr, "n": len(values)}


def pooled_mean(values: Sequence[float], counts: Sequence[int]) -> dict[str, float]:
    """The mean over all parts (tokens, windows) of examples that have `counts` parts, each of mean `values`.

    Examples are what is drawn, so the standard error is that of a ratio estimate (Cochran, Sampling Techniques, 1977,
    chapter 6).
    """
    total = sum(counts)
    value = sum(x * count for x, count in zip(values, counts, strict=True)) / total
    spread = sum((count * (x - value)) ** 2 for x, count in zip(values, counts, strict=True))
    stderr = math.sqrt(spread * len(values) / max(len(values) - 1, 1)) / total
    return {"value": value, "stderr": stderr, "n": len(values)}
