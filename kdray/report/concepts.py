"""How large concepts were before rows were balanced, and how large they are among the rows kept."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes

from kdray.report.page.drawing import PALETTE, Picture, picture

NAME = "concepts"


def draw_concepts(folder: Path, concepts: pa.Table) -> Picture:
    """Draw rows of each concept against its place among all of its language, largest first, into `folder` as SVG and
    PNG. `concepts` are those of `artifacts.curated.read_concepts`; entries without a match are left out.
    """
    alt = "rows of each concept, the largest first, before and after rows were balanced"
    return picture(folder, NAME, alt, functools.partial(_draw, concepts=concepts), (5.0, 3.0))


def _draw(axis: Axes, concepts: pa.Table) -> None:
    languages = dict.fromkeys(concepts["language"].to_pylist())
    for place, language in enumerate(languages):
        own = np.array([one == language for one in concepts["language"].to_pylist()])
        before, after = (np.asarray(concepts[name])[own] for name in ("matches", "kept"))
        order = np.argsort(-before, kind="stable")[: np.count_nonzero(before)]
        ranks, colour = np.arange(1, len(order) + 1), PALETTE[place % len(PALETTE)]
        whose = f"{language}: " if len(languages) > 1 else ""
        axis.plot(ranks, after[order], ".", markersize=2, color=colour, alpha=0.5, label=f"{whose}among rows kept")
        axis.plot(ranks, before[order], "-", color=colour, label=f"{whose}among all rows")
    axis.set(xscale="log", yscale="log", xlabel="concepts, the largest first", ylabel="rows")
    axis.legend(markerscale=4)
