"""How GPUs are divided between points that train and checkpoints that are answered and scored meanwhile."""

from __future__ import annotations

SHARE = 0.1  # of all GPUs for answers and scores, where their price is not known
MOST = 0.5  # points come first: without them there is nothing to score


def points_beside(fit: int, gpus: int, workers: int, share: float, wanted: int | None) -> int:
    """How many of the points that fit on the GPUs train at once, each on so many, while others are scored.

    `wanted` GPUs answer and score or, without a wish, a share of them: but never those of the only point that fits, and
    never none, for a point is not cut.
    """
    if wanted is not None:
        return min(fit, (gpus - wanted) // workers)
    return max(1, min(fit - 1, int(gpus * (1 - share)) // workers)) if fit > 1 else fit
