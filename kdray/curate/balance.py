"""How often entries are matched, and what that makes of a row's chance to be kept: MetaCLIP 2's algorithm 2."""

from __future__ import annotations

import numpy as np

from kdray.data.split import mixed

KEPT, CONTROL = 1, 2**32 + 1  # what draws are for: seeds are smaller than 2**32


def tail_share(threshold: float, counts: np.ndarray) -> float:
    """The share of all matches that are matches of tail entries, those with fewer than `threshold` (`t_to_p`)."""
    return float(counts[counts < threshold].sum() / max(counts.sum(), 1))


def threshold_of(share: float, counts: np.ndarray) -> int:
    """The count of the entry up to which, counted from the rarest, the matches are nearest to that share of all
    (`p_to_t`); 1 where nothing is matched.
    """
    ordered = np.sort(counts[counts > 0])
    if not len(ordered):
        return 1
    return int(ordered[np.abs(np.cumsum(ordered) / ordered.sum() - share).argmin()])


def entry_chances(threshold: float, counts: np.ndarray) -> np.ndarray:
    """[n] chances of matches of each entry: 1 of those in the tail, threshold / count of the others."""
    return threshold / np.maximum(counts, threshold)


def row_chances(matched: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """[count] chances that rows are kept: that one of its matches at least is drawn; 0 of a row without any.

    Args:
        matched: [m] chances of the matches' entries.
        rows: [m] in which row each match is, 0 to count - 1.
    """
    with np.errstate(divide="ignore"):  # a match that is surely drawn
        none = np.bincount(rows, weights=np.log1p(-matched), minlength=count)
    return 1 - np.exp(none)


def draws(rows: np.ndarray, seed: int) -> np.ndarray:
    """[n] numbers in [0, 1), each made of a row's number and the seed alone: a row is kept where its chance is larger.

    One draw a row has the same outcome as one for each of its entries, and does not depend on how the rows are cut.
    """
    return (_keys(rows, seed, KEPT) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def at_random(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` of the rows [n], ascending, whatever they are about: the control for rows that are balanced."""
    return np.sort(rows[np.argsort(_keys(rows, seed, CONTROL), kind="stable")[:count]])


def _keys(rows: np.ndarray, seed: int, purpose: int) -> np.ndarray:
    return mixed(rows, int(mixed(np.array([seed]), purpose)[0]))
