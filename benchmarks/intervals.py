"""How often the report's interval covers the truth, on simulated grids: `python -m benchmarks.intervals [--grids 500]
[--json]`.

Every grid has an arm and a baseline, scored on the same items in the same cells. Effects of cells, of items and of both
together are drawn anew for each grid. `coverage` is the share of 95% intervals that hold the planted difference,
`alarms` of those that leave out 0 where nothing was planted; both should be near 95 and 5. Beside it the interval of
Student's t over the cells' means alone, which takes items for known. Last, the best of five arms of which none differs:
how often an interval for it alone leaves out 0, and how often the one that holds for all five at once does.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from kdray.report.crossed import crossed

SIZES = [(1, 200), (2, 200), (3, 200), (6, 50), (6, 200), (6, 1000), (12, 200)]  # cells, items
EFFECTS = [
    (0.0, 0.3),
    (0.1, 0.3),
    (0.3, 0.3),
    (0.0, 1.0),
]  # standard deviations of a cell's effect and an item's; both together: 1
PLANTED = 0.2
ARMS = 5


def drawn(
    rng: np.random.Generator, cells: int, items: int, of_cell: float, of_item: float, binary: bool
) -> NDArray[np.float64]:
    """Differences [cells, items] of an arm that differs by nothing in the mean; of right and wrong answers if
    `binary`.
    """
    if not binary:
        return (
            rng.normal(0, of_cell, (cells, 1)) + rng.normal(0, of_item, (1, items)) + rng.normal(0, 1, (cells, items))
        )
    ease = rng.normal(0, 1, items)
    right = []
    for _ in range(2):
        logits = (
            ease
            + rng.normal(0, of_cell, (cells, 1))
            + rng.normal(0, of_item, (1, items))
            + rng.normal(0, 1, (cells, items))
        )
        right.append((rng.random((cells, items)) < 1 / (1 + np.exp(-logits))).astype(float))
    return right[0] - right[1]


def of_cells(differences: NDArray[np.float64]) -> tuple[float, float]:
    """Student's t over the means of cells."""
    means, cells = differences.mean(1), len(differences)
    half = float(stats.t.ppf(0.975, cells - 1)) * float(means.std(ddof=1)) / math.sqrt(cells) if cells > 1 else math.inf
    return float(means.mean()) - half, float(means.mean()) + half


def coverage(grids: int) -> Iterator[dict[str, float | str]]:
    """A row of figures, in percent, for every kind of grid."""
    rng = np.random.default_rng(20)
    for kind in ("continuous", "binary"):
        for cells, items in SIZES:
            for cell, item in EFFECTS:
                if cells == 1 and cell:
                    continue  # one cell says nothing of others
                hits = np.zeros(4)
                for _ in range(grids):
                    noise = drawn(rng, cells, items, cell, item, kind == "binary")
                    for shift, to in ((PLANTED, 0), (0.0, 1)):
                        found = crossed(noise + shift)
                        assert found
                        for place, (low, high) in ((to, found.interval()), (to + 2, of_cells(noise + shift))):
                            hits[place] += low <= shift <= high
                share = 100 * hits / grids
                yield {
                    "scores": kind,
                    "cells": cells,
                    "items": items,
                    "of_cell": cell,
                    "of_item": item,
                    "coverage": share[0],
                    "alarms": 100 - share[1],
                    "coverage_over_cells": share[2],
                    "alarms_over_cells": 100 - share[3],
                }


def best_of(grids: int, arms: int = ARMS) -> dict[str, float]:
    """False alarms about the best of several arms that do not differ, in percent; all are held against one baseline."""
    rng, alarms = np.random.default_rng(21), np.zeros(2)
    for _ in range(grids):
        baseline = drawn(rng, 6, 200, 0.1, 0.3, binary=False)
        found = [crossed(drawn(rng, 6, 200, 0.1, 0.3, binary=False) - baseline) for _ in range(arms)]
        best = max((arm for arm in found if arm), key=lambda arm: arm.mean)
        for place, level in ((0, 0.05), (1, 0.05 / arms)):
            low, high = best.interval(level)
            alarms[place] += not low <= 0 <= high
    return {"arms": arms, "alone": 100 * alarms[0] / grids, "at_once": 100 * alarms[1] / grids}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grids", type=int, default=500, help="of every kind")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows, best = list(coverage(given.grids)), best_of(given.grids)
    if given.json:
        print(json.dumps({"rows": rows, "best_of": best}))
        return
    print("| scores | cells x items | sd of a cell, an item | coverage | false alarms | over cells alone |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        alone = "-" if row["cells"] == 1 else f"{row['coverage_over_cells']:.1f}, {row['alarms_over_cells']:.1f}"
        size, effects = f"{row['cells']} x {row['items']}", f"{row['of_cell']}, {row['of_item']}"
        print(f"| {row['scores']} | {size} | {effects} | {row['coverage']:.1f} | {row['alarms']:.1f} | {alone} |")
    print(
        f"best of {best['arms']} equal arms: {best['alone']:.1f}% false alarms by its own interval,"
        f" {best['at_once']:.1f}% by that for all"
    )


if __name__ == "__main__":
    main()
