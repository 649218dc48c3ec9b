"""How long answers are and how much of them is copied from their source: what detectors of hallucinations reward by
themselves.

Extractive fragments are the longest runs of words that an answer shares with its source, found greedily from the
answer's beginning; coverage is the share of words in any, density the mean over words of the length of the fragment
that each is in (Grusky, Naaman and Artzi 2018, Newsroom, section 4.1).
"""

from __future__ import annotations

import functools
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdray.artifacts.answers import read_answers
from kdray.data.words import tokens
from kdray.report.crossed import Crossed, crossed


@dataclass(frozen=True)
class Manner:
    """Of one answer: its words, the share of them copied, and the density of what is copied; without a source only
    words.
    """

    words: int
    coverage: float | None
    density: float | None


def fragments(answer: Sequence[str], source: Sequence[str]) -> list[int]:
    """The lengths in words of the fragments that an answer shares with its source."""
    places: dict[str, list[int]] = defaultdict(list)
    for at, word in enumerate(source):
        places[word].append(at)
    found, at = [], 0
    while at < len(answer):
        longest = max((_shared(answer, at, source, place) for place in places.get(answer[at], ())), default=0)
        found += [longest] if longest else []
        at += max(longest, 1)
    return found


def _shared(answer: Sequence[str], at: int, source: Sequence[str], place: int) -> int:
    length = 0
    while at + length < len(answer) and place + length < len(source) and answer[at + length] == source[place + length]:
        length += 1
    return length


def manner_of(answer: str, source: str) -> Manner:
    """Of an answer to a text; nothing is copied by an answer without words."""
    words = tokens(answer)
    if not source or not words:
        return Manner(len(words), None, None)
    shared = fragments(words, tokens(source))
    return Manner(len(words), sum(shared) / len(words), sum(length * length for length in shared) / len(words))


@functools.lru_cache(maxsize=1024)
def manners_of(folder: Path) -> dict[str, Manner]:
    """By item, of the answers in a folder.

    Raises:
        InputError: they are damaged.
    """
    return {
        str(row["example"]): manner_of(row["answer"], row["source"])
        for row in read_answers(folder)
        if row["error"] is None
    }


def mean_manner(folder: Path) -> tuple[float, float | None, float | None]:
    """Words, and percent copied and density where there is a source, in the mean over the answers in a folder."""
    found = manners_of(folder).values()
    copied = [manner for manner in found if manner.coverage is not None and manner.density is not None]
    words = statistics.fmean(manner.words for manner in found) if found else math.nan
    if not copied:
        return words, None, None
    coverage = 100 * statistics.fmean(manner.coverage or 0.0 for manner in copied)
    return words, coverage, statistics.fmean(manner.density or 0.0 for manner in copied)


def adjusted(differences: NDArray[np.float64], others: Sequence[NDArray[np.float64]]) -> Crossed | None:
    """The mean of differences [cells, items] as it would be if `others`, of the same shape, were 0: what a regression
    on them leaves.

    The slopes are least squares within items and within cells, so that an item on which every run is long says nothing;
    of one cell over its items. That the slopes are not known exactly widens the interval. None without two numbers.
    """
    within, outcome = np.stack([_within(other).ravel() for other in others], axis=1), _within(differences).ravel()
    slopes, *_ = np.linalg.lstsq(within, outcome, rcond=None)
    found = crossed(differences - sum(slope * other for slope, other in zip(slopes, others, strict=True)))
    if found is None:
        return None
    cells, items = differences.shape
    free = max(1, (cells - 1) * (items - 1) if cells > 1 else items - 1) - len(others)
    left = float(((outcome - within @ slopes) ** 2).sum()) / max(1, free)
    means = np.array([other.mean() for other in others])
    of_slopes = left * float(means @ np.linalg.pinv(within.T @ within) @ means)
    return found.widened(math.sqrt(of_slopes))


def _within(values: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = values - values.mean(1, keepdims=True)
    return centred if len(values) == 1 else centred - values.mean(0, keepdims=True) + values.mean()
