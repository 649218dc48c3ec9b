"""What the commands of `kdray lens` are given: annotated sets, metrics, places to write to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from kdray.cli.shared import err, out
from kdray.spec import declare
from kdray.spec.errors import InputError, did_you_mean
from kdray.spec.paths import local_path

if TYPE_CHECKING:
    from kdray.lens.align import Aligned
    from kdray.lens.annotations import Annotated as Marked
    from kdray.spec.sections.base import Use

Model = Annotated[str, typer.Option(help="a reference such as file:FOLDER or hf:org/name@commit")]
Annotations = Annotated[
    str, typer.Argument(metavar="FORMAT:FILE", help="annotated responses, for example faithbench:faithbench.jsonl")
]
Answers = Annotated[
    Path, typer.Argument(metavar="ANSWERS", help="a folder of kept answers: store/generate/NAME/attempt-NNN")
]
Window = Annotated[int, typer.Option(min=1, help="tokens of a sliding window")]
Limit = Annotated[int | None, typer.Option(min=2, help="use only so many responses of each set, spread evenly")]
MaxWords = Annotated[int, typer.Option(min=1, help="where a document without a stored prompt is cut")]
Template = Annotated[str, typer.Option(help="of prompts, for responses that come without one")]


def annotated_set(name: str, limit: int | None) -> list[Marked]:
    """The annotated set FORMAT:FILE, or `limit` of it."""
    from kdray.lens.responses import read_responses
    from kdray.spec.components import components

    kind = name.partition(":")[0]
    if kind not in components(declare.Annotations):
        raise InputError("annotations", f"no format '{kind}'", did_you_mean(kind, components(declare.Annotations)))
    return read_responses(kind, file_of(name), limit)


def file_of(name: str) -> Path:
    """The file of the annotated set FORMAT:FILE."""
    return Path(local_path(name.partition(":")[2], "annotations"))


def aligned_set(
    rows: list[Marked], model: Any, tokenizer: Any, template: str, max_words: int
) -> tuple[list[Aligned], dict[str, Any]]:
    """An annotated set as tokens, with its numbers; problems are printed."""
    from kdray.data.templates import open_template
    from kdray.lens.responses import align_all
    from kdray.spec.folders import window_in
    from kdray.spec.load import parse_use

    def tell(text: str) -> None:
        err.print(f"[yellow]{escape(text)}[/]", soft_wrap=True, highlight=False)

    make_prompt = open_template(parse_use(template, declare.Template, "--template").model_dump())
    return align_all(rows, tokenizer, make_prompt, max_words, window_in(model.config.to_dict()), tell)


def require_answers(folder: Path) -> None:
    """Raise InputError unless `folder` has kept answers: found before any model is opened."""
    from kdray.artifacts.parts import all_parts

    if not all_parts(folder):
        allowed = "give a folder store/generate/NAME/attempt-NNN of a task with documents"
        raise InputError("ANSWERS", f"no answers in {folder}", allowed)


def to_folder(to: str) -> Path:
    """The folder to write, which may be there already; what is wrong with it is found before any work."""
    path = _named(to)
    if path.exists() and not path.is_dir():
        raise InputError("--to", f"{path} is no folder", "give a folder")
    _require_writable(next(place for place in (path, *path.absolute().parents) if place.exists()))
    return path


def to_file(to: str) -> Path:
    """As `to_folder` for a file, whose folder must be there."""
    path = _named(to)
    if path.exists() and not path.is_file():
        raise InputError("--to", f"{path} is no file", "give a file")
    if not path.parent.exists():
        raise InputError("--to", f"no folder {path.parent}", "make it, or give a file in another one")
    _require_writable(path.parent)
    return path


def _named(to: str) -> Path:
    return Path(local_path(to, "--to"))


def _require_writable(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError("--to", f"{folder} is no folder", "give another place")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError("--to", f"{folder} cannot be written", "give another place")


def metric_use(text: str, able: Callable[[str], bool]) -> Use:
    """A metric of those that are `able`, as in a grid file."""
    from kdray.check.checks import check_metrics
    from kdray.check.machine import needs_of_metrics, require
    from kdray.models.load import CACHE
    from kdray.spec.components import components
    from kdray.spec.load import parse_use
    from kdray.store import Outer

    use = parse_use(text, declare.Metric, "--metric")
    if not able(use.name):
        allowed = f"one of {', '.join(filter(able, components(declare.Metric)))}"
        raise InputError("--metric", f"'{use.name}' is not about an answer's source", allowed)
    require(needs_of_metrics({"--metric": use}), offline=False)
    check_metrics({"--metric": use}, Outer(CACHE))
    return use


def detector(text: str) -> Callable[[list[Marked]], dict[str, Any]]:
    """What a metric is worth as a detector, for any annotated set."""
    from kdray.score.standalone import metric_auroc, open_metric
    from kdray.spec.components import declared
    from kdray.spec.lens import judges_texts

    use = metric_use(text, judges_texts)
    metric, score = open_metric(use, "--metric"), declared(declare.Metric, use.name).scores[0]
    return lambda rows: metric_auroc(rows, metric, score)


def follow(items: Sequence[Any], title: str) -> Iterable[Any]:
    """A progress bar, where there is a terminal."""
    from rich.progress import track

    return track(items, title, console=err, disable=not err.is_terminal)


def show(title: str, lines: Sequence[dict[str, Any]]) -> None:
    from rich.table import Table

    if not lines:
        return
    shown = Table(*lines[0], title=title, title_justify="left", box=None)
    for line in lines:
        shown.add_row(*(f"{value:.1f}" if isinstance(value, float) else str(value) for value in line.values()))
    out.print(shown)
    out.print()
