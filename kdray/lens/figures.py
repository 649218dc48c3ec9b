"""Two views of one answer: what the lens's heaviest heads look at over time, and the chunks that a guide kept and
rejected.

They follow Figures 4.3 and 4.4 of the Lookback Lens chapter of Y.-S. Chuang's thesis.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle
from torch import Tensor

from kdray.lens.guided import ChunkChoice
from kdray.spec.errors import InputError

KEPT, REJECTED, FRAME = "#1b7837", "#9a9a9a", "#1b7837"
COLUMN = 44  # characters of a chunk in one line


def plot_heads(
    ratios: Tensor,
    weights: Tensor,
    tokens: Sequence[str],
    path: Path,
    top: int = 10,
    spans: Sequence[tuple[int, int]] = (),
) -> None:
    """The lookback ratios of the heads with the most positive and the most negative weights, the heaviest on top.

    Args:
        ratios: [R, L, H] of an answer.
        weights: [L, H] of the lens.
        tokens: the text of each of the R tokens.
        path: of the image.
        top: heads of each sign, as far as there are so many.
        spans: [begin, end) tokens to be framed, such as hallucinated ones.

    Raises:
        InputError: the shapes do not go together.
    """
    if ratios.shape[1:] != weights.shape or len(tokens) != len(ratios):
        found = f"ratios of shape {tuple(ratios.shape)}, weights {tuple(weights.shape)}, {len(tokens)} tokens"
        raise InputError("ratios", found, "[R, L, H], [L, H] and R tokens")
    flat = weights.flatten()
    order = flat.argsort(descending=True).tolist()
    groups = {
        "positive": [i for i in order if flat[i] > 0][:top],
        "negative": [i for i in reversed(order) if flat[i] < 0][:top],
    }
    size = (max(6.0, 0.34 * len(tokens) + 2), 0.22 * sum(map(len, groups.values())) + 1.8)
    figure, axes = plt.subplots(2, 1, figsize=size, sharex=True, layout="constrained")
    shades: Any = None
    for axis, (sign, heads) in zip(axes, groups.items(), strict=True):
        shades = axis.imshow(
            ratios.flatten(1)[:, heads].T.float().numpy(), aspect="auto", cmap="coolwarm", vmin=0, vmax=1
        )
        axis.set_yticks(
            range(len(heads)),
            [f"layer {i // weights.shape[1] + 1}, head {i % weights.shape[1] + 1}" for i in heads],
            fontsize=7,
        )
        axis.set_title(f"heads with the most {sign} weights", fontsize=9, loc="left")
        for begin, end in spans:
            axis.add_patch(Rectangle((begin - 0.5, -0.5), end - begin, len(heads), fill=False, edgecolor=FRAME, lw=2))
    axes[-1].set_xticks(range(len(tokens)), [_plain(token) for token in tokens], rotation=90, fontsize=7)
    figure.colorbar(shades, ax=axes, label="lookback ratio", shrink=0.8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def plot_choices(
    choices: Sequence[ChunkChoice], decode: Callable[[list[int]], str], path: Path, rejected: int = 3
) -> None:
    """A column a chunk: the kept candidate with its score, below it the lowest-scored ones that were rejected.

    Args:
        choices: of one guided answer.
        decode: from token ids to text, such as a tokenizer's `decode`.
        path: of the image.
        rejected: how many of them to show, from the lowest score up.
    """
    columns = [_cells(choice, decode, rejected) for choice in choices]
    heights = [
        max(len(column[row][0].splitlines()) if row < len(column) else 0 for column in columns)
        for row in range(rejected + 1)
    ]
    figure, axis = plt.subplots(figsize=(3.4 * len(columns), 0.2 * sum(heights) + 0.3 * len(heights) + 0.5))
    axis.axis("off")
    total = sum(heights) + len(heights)
    for place, column in enumerate(columns):
        above = 0
        for row, (text, colour) in enumerate(column):
            where = (place / len(columns), 1 - above / total)
            axis.text(*where, text, color=colour, fontsize=8, va="top", family="monospace", transform=axis.transAxes)
            above += heights[row] + 1
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)


def _cells(choice: ChunkChoice, decode: Callable[[list[int]], str], rejected: int) -> list[tuple[str, str]]:
    """Texts with their colours: the kept candidate's first."""
    others = sorted((i for i in range(len(choice.chunks)) if i != choice.kept), key=choice.scores.__getitem__)[
        :rejected
    ]
    cells = []
    for i in [choice.kept, *others]:
        text = (
            f"{'kept' if i == choice.kept else 'rejected'} ({choice.scores[i]:.3f}) {_plain(decode(choice.chunks[i]))}"
        )
        cells.append((textwrap.fill(text, COLUMN), KEPT if i == choice.kept else REJECTED))
    return cells


def _plain(text: str) -> str:
    """In one line, and without the dollar signs that matplotlib would read as mathematics."""
    return " ".join(text.split()).replace("$", r"\$")
