"""When a run did what: points that trained, answers and scores over minutes, drawn from the times of its store's files.

    python -m benchmarks.timeline NAME=STORE [NAME=STORE ...] [--to FILE.png] [--json]

One panel a store, made by one undisturbed run, which may still be at work; a point begins when the file of its curve
was born, so the store must be on a file system that knows that. A point without an end, at work or stopped, is drawn
pale up to its newest step. Printed are the minutes to the first score of a point, to the last point, and to the end, as
far as there are any; with several stores also their ratios to the first one's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdray.artifacts.curve import curve_file
from kdray.report.page.drawing import STYLE
from kdray.store.locks import DONE
from kdray.store.store import RECORD

OPEN = "begun"
NAMES = {"first_score": "first score of a point", "last_point": "last point", "end": "end"}
BEFORE = ("model", "prepare", "teach", "augment", "soften", "lens")  # what points wait for, and the lens


@dataclass(frozen=True)
class Timeline:
    """Minutes since a run's first file: spans of steps by kind (of points without an end `OPEN`) and slug, the ends of
    parts of answers and of scores.
    """

    spans: list[tuple[str, str, float, float]]
    answers: list[float]
    scores: list[float]
    trained_scores: list[float]  # those of the points' own checkpoints

    @property
    def figures(self) -> dict[str, float]:
        """The minutes that matter, of what has been."""
        points = [end for kind, _, _, end in self.spans if kind == "train"]
        every = {
            "first_score": self.trained_scores[:1],
            "last_point": points,
            "end": [*self.scores, *points],
        }
        return {name: max(times) for name, times in every.items() if times}


def born(path: Path) -> float:
    """When a file was made, in minutes since 1970, which Python does not tell."""
    return int(subprocess.run(["stat", "--format=%W", path], capture_output=True, check=True).stdout) / 60


def timeline_of(store: Path) -> Timeline:
    """The times of a store's finished artifacts, and of points that have begun."""
    times = {
        folder: ((folder / RECORD).stat().st_mtime / 60, (folder / DONE).stat().st_mtime / 60)
        for folder in store.glob("*/*-*")
        if (folder / DONE).is_file() and (folder / RECORD).is_file()
    }
    start = min(begin for begin, _ in times.values())
    for folder in [folder for folder in times if folder.parent.name == "train"]:  # all are claimed together
        times[folder] = (born(curve_file(next(folder.glob("attempt-*")))), times[folder][1])
    spans = {
        folder: (folder.parent.name, *span)
        for folder, span in times.items()
        if folder.parent.name in (*BEFORE, "train")
    }
    for curve in sorted(
        store.glob(f"train/*-*/attempt-*/{curve_file(Path()).name}")
    ):  # the newest attempt's is the last
        if (folder := curve.parent.parent) not in times:
            spans[folder] = (OPEN, born(curve), curve.stat().st_mtime / 60)
    points = {folder.name.rpartition("-")[0] for folder, (kind, *_) in spans.items() if kind in ("train", OPEN)}
    measured = {folder: end - start for folder, (_, end) in times.items() if folder.parent.name == "measure"}
    return Timeline(
        sorted(
            (
                (kind, folder.name.rpartition("-")[0], begin - start, end - start)
                for folder, (kind, begin, end) in spans.items()
            ),
            key=lambda span: span[2:],
        ),
        sorted(part.stat().st_mtime / 60 - start for part in store.glob("generate/*/*/part-*")),
        sorted(measured.values()),
        sorted(end for folder, end in measured.items() if any(folder.name.startswith(point) for point in points)),
    )


def draw(axis: Axes, name: str, found: Timeline) -> None:
    """Lanes from above: what comes before the points, every point, answers, scores."""
    lanes = {"before": 0.0}
    for kind, slug, begin, end in found.spans:
        lane = lanes.setdefault(slug, float(len(lanes))) if kind in ("train", OPEN) else 0.0
        colour = {"train": "#0072b2", OPEN: "#a6cee3", "lens": "#cc79a7"}.get(kind, "#999999")
        axis.barh(lane, end - begin, left=begin, height=0.7, color=colour, alpha=0.85)
    for label, times in (("answers", found.answers), ("scores", found.scores)):
        lanes[label] = float(len(lanes))
        axis.plot(times, [lanes[label]] * len(times), "|", markersize=9, color="#d55e00")
    axis.set_yticks(list(lanes.values()), list(lanes), fontsize=7)
    axis.invert_yaxis()
    figures = found.figures
    if "last_point" in figures:
        axis.axvline(figures["last_point"], linestyle=":", color="#333333", linewidth=1)
    axis.set_title(", ".join([name, *(f"{NAMES[key]} {value:.1f} min" for key, value in figures.items())]))
    axis.set_xlabel("minutes (dotted: the last point has trained)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="+", metavar="NAME=STORE")
    parser.add_argument("--to", type=Path, help="a picture")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = {name: timeline_of(Path(store)) for name, _, store in (each.partition("=") for each in given.stores)}
    figures = {name: each.figures for name, each in found.items()}
    first = next(iter(figures.values()))
    ratios = {
        name: {key: value / first[key] for key, value in each.items() if key in first} for name, each in figures.items()
    }
    if given.json:
        print(json.dumps({"minutes": figures, "ratios": ratios}))
    else:
        for name, each in figures.items():
            ratio = {key: f" (x {value:.2f})" for key, value in ratios[name].items()}
            print(name, *(f"{key} {value:.1f} min{ratio.get(key, '')}" for key, value in each.items()), sep="  ")
    if given.to:
        longest = max(
            t for each in found.values() for t in (*(end for *_, end in each.spans), *each.answers, *each.scores)
        )
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(9.5, 3.6 * len(found)), layout="constrained")
            for axis, (name, each) in zip(
                figure.subplots(len(found), 1, squeeze=False).flat, found.items(), strict=True
            ):
                draw(axis, name, each)
                axis.set_xlim(0, 1.02 * longest)
            figure.savefig(given.to, dpi=130, facecolor="white")


if __name__ == "__main__":
    main()
