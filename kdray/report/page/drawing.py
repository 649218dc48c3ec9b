"""How figures look, and matplotlib's SVG as a part of a page: in the page's own colours, by day and night.

Colours are those of Okabe and Ito, which the colour-blind can tell apart, and every arm has a marker and dashes too.
A figure is drawn once and kept as SVG and PNG. In the page the SVG's colours become CSS variables.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from kdray.plan.steps import slug_of
from kdray.report.arms import BASELINE, Arm

INK, GREY, RULE = "#1b1f24", "#626b76", "#d9dde3"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (2, 1)),
    (0, (6, 1.5, 1.5, 1.5)),
    (0, (1, 1)),
    (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
)
CSS = {INK: "currentColor", GREY: "var(--muted)", RULE: "var(--rule)"} | {
    colour: f"var(--c{i})" for i, colour in enumerate(PALETTE, 1)
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "kdray",  # the same ids each time
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 8,
}
XLINK = "{http://www.w3.org/1999/xlink}href"
POINTED_AT = re.compile(r"url\(#([^)]*)\)")


@dataclass(frozen=True)
class Look:
    """What one arm looks like in every figure."""

    colour: str
    marker: str
    dashes: Any  # as matplotlib has line styles


@dataclass(frozen=True)
class Picture:
    """A figure in a page: `alt` says in words what it shows."""

    name: str
    alt: str
    svg: Markup
    width: int  # CSS pixels, at most


def look_of(place: int) -> Look:
    """The look of the arm in this place among all; the first, plain fine-tuning, is drawn in ink."""
    colour = INK if place == 0 else PALETTE[(place - 1) % len(PALETTE)]
    return Look(colour, MARKERS[place % len(MARKERS)], DASHES[place % len(DASHES)])


def looks_of(arms: Iterable[Arm]) -> dict[Arm, Look]:
    """What every arm looks like: SFT in ink, whether it is among them or not."""
    return {arm: look_of(place) for place, arm in enumerate(dict.fromkeys([BASELINE, *arms]))}


def picture(
    folder: Path, name: str, alt: str, draw: Callable[[Axes], None], size: tuple[float, float] = (3.5, 2.6)
) -> Picture:
    """Draw one figure of `size` inches into `folder`, as SVG and PNG, and give it back for a page."""
    folder.mkdir(parents=True, exist_ok=True)
    name = slug_of(name)
    with matplotlib.rc_context(STYLE):
        figure, layout = Figure(figsize=size), ConstrainedLayoutEngine()
        FigureCanvasAgg(figure)
        draw(figure.subplots())
        layout.execute(figure)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        figure.savefig(folder / f"{name}.png", dpi=144, facecolor="white")
    return Picture(
        name, alt, inline((folder / f"{name}.svg").read_text(encoding="utf-8"), name, alt), round(size[0] * 105)
    )


def inline(svg: str, name: str, alt: str) -> Markup:
    """A figure's SVG for a page that has others: ids of its own, colours by CSS, no size, no styles for the whole
    page.
    """
    root = ET.fromstring(svg)
    for parent in list(root.iter()):
        for child in [each for each in parent if each.tag.endswith(("}metadata", "}style"))]:
            parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key, value in list(element.attrib.items()):
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif key == XLINK:
                del element.attrib[key]
                element.set("href", f"#{name}-{value.removeprefix('#')}")
            else:
                element.set(key, POINTED_AT.sub(rf"url(#{name}-\1)", _in_css(value)))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", alt)
    return Markup(ET.tostring(root, encoding="unicode"))


def listed(parts: Sequence[str]) -> str:
    """Parts of an alt text as one sentence."""
    return "; ".join(parts) + "."


def _in_css(value: str) -> str:
    for colour, variable in CSS.items():
        value = value.replace(colour, variable)
    return value
