"""How GPUs are divided: between points that train and checkpoints that are answered and scored meanwhile, and among
points that share one.
"""

from __future__ import annotations

from typing import Literal

SHARE = 0.1  # of all GPUs for answers and scores, where their price is not known
MOST = 0.5  # points come first: without them there is nothing to score
SHARERS = 4  # of a GPU, at most, where nobody says how many
SHARED = 0.8  # of its memory, for what is reckoned; allocators keep some that nobody uses
PROCESS = 1e9  # bytes of a GPU that each process takes before it does anything


def points_beside(fit: int, gpus: int, workers: int, share: float, wanted: int | None) -> int:
    """How many of the points that fit on the GPUs train at once, each on so many, while others are scored.

    `wanted` GPUs answer and score or, without a wish, a share of them: but never those of the only point that fits, and
    never none, for a point is not cut.
    """
    if wanted is not None:
        return max(0, min(fit, (gpus - wanted) // workers))
    return max(1, min(fit - 1, int(gpus * (1 - share)) // workers)) if fit > 1 else fit


def points_per_gpu(
    wanted: int | Literal["auto"], workers: int, needed: float | None, memory: float, points: int, gpus: int
) -> int:
    """How many points share a GPU: as many as `wanted` or, of one worker each, as fit in its `memory`.

    Each takes `needed` bytes; None where that is not sure, and nothing is shared. None shares as long as there is a GPU
    for each of the points: parts of GPUs are taken one GPU after the other.
    """
    if wanted != "auto":
        return wanted
    if workers > 1 or needed is None:
        return 1
    fit = int(SHARED * memory // (needed + PROCESS))
    return max(1, min(fit, SHARERS, -(-points // gpus)))
