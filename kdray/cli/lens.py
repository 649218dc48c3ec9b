"""The command line of Lookback Lens: `kdray lens --help`."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from kdray.spec import declare
from kdray.spec.errors import InputError, did_you_mean
from kdray.spec.paths import local_path

if TYPE_CHECKING:
    from kdray.lens.align import Aligned
    from kdray.lens.annotations import Annotated as Marked
    from kdray.spec.grid import Use

lens = typer.Typer(no_args_is_help=True, help="Detect contextual hallucinations by what a model's attention looks back at.")
out = Console(width=None if sys.stdout.isatty() else 140)
err = Console(stderr=True)
Model = Annotated[str, typer.Option(help="a reference such as file:FOLDER or hf:org/name@commit")]
Annotations = Annotated[str, typer.Argument(metavar="FORMAT:FILE", help="annotated responses, for example faithbench:faithbench.jsonl")]
Answers = Annotated[Path, typer.Argument(metavar="ANSWERS", help="a folder of kept answers: store/generate/NAME/attempt-NNN")]
Window = Annotated[int, typer.Option(min=1, help="tokens of a sliding window")]
Limit = Annotated[int | None, typer.Option(min=2, help="use only so many responses of each set, spread evenly")]
MaxWords = Annotated[int, typer.Option(min=1, help="where a document without a stored prompt is cut")]
Template = Annotated[str, typer.Option(help="of prompts, for responses that come without one")]
Json = Annotated[bool, typer.Option("--json", help="machine-readable output")]


@lens.command()
def table(
    source: Annotations,
    model: Model,
    target: Annotated[str | None, typer.Option(metavar="FORMAT:FILE", help="another annotated set, to transfer to and from")] = None,
    window: Window = 8,
    limit: Limit = None,
    max_words: MaxWords = 700,
    template: Template = "chat",
    baselines: Annotated[bool, typer.Option(help="classifiers on hidden states too")] = True,
    metric: Annotated[str | None, typer.Option(help="one of factual consistency as a detector of spans: 'hhem'")] = None,
    as_json: Json = False,
) -> None:
    """Compare detectors on an annotated set, by two folds of its documents: the thesis's Tables 4.1 to 4.4, 4.9 and 4.10."""
    from kdray.lens.tables import study
    from kdray.models import load

    judge = _metric(metric) if metric else None
    annotated = {name: _annotated(name, limit) for name in (source, target) if name}
    loaded, tokenizer = load(model)
    sets: dict[str, list[Aligned]] = {}
    summary: list[dict[str, Any]] = []
    judged: list[dict[str, Any]] = []
    for name, rows in annotated.items():
        short = name.partition(":")[0]
        label = name if short in sets else short
        sets[label], line = _aligned(rows, loaded, tokenizer, template, max_words)
        summary.append({"set": label, **line})
        if judge:
            judged.append({"set": label, "metric": metric, **judge(rows)})
    made = study(loaded, sets, window, baselines, _follow)
    tables = {"annotations": summary, "numbers": made.counts, "AUROC": made.methods, "heads": made.heads, "layers": made.layers}
    tables |= {"a metric on predefined spans": judged} if judged else {}
    if as_json:
        print(json.dumps(tables))
        return
    for title, lines in tables.items():
        _print(title, lines)


@lens.command()
def train(
    source: Annotations,
    model: Model,
    to: Annotated[str, typer.Option(help="the folder to write")],
    family: Annotated[str, typer.Option(help="for the record")] = "",
    window: Window = 8,
    limit: Limit = None,
    max_words: MaxWords = 700,
    template: Template = "chat",
) -> None:
    """Train a lens on sliding windows of an annotated set, and keep it as a folder: every fifth document is kept out to test it."""
    from kdray.lens.training import keep, read_all, summary, train_lens
    from kdray.models import load
    from kdray.store.io import sha256

    folder, annotated = _to_folder(to), _annotated(source, limit)
    loaded, tokenizer = load(model)
    rows, counts = _aligned(annotated, loaded, tokenizer, template, max_words)
    origin = {"family": family, "model": model, "annotations": source, "sha256": sha256(_file_of(source)), **counts}
    made = train_lens(read_all(loaded, rows, window, _follow), loaded.config.num_hidden_layers, window, origin)
    keep(made, rows, tokenizer, folder)
    out.print(f"lens {made.id} in {folder}: {summary(made)}", highlight=False)


@lens.command()
def annotate(
    answers: Answers,
    metric: Annotated[str, typer.Option(help="'lettucedetect', or '{name: judge, model: gpt-4o}', as in a grid file")],
    to: Annotated[str, typer.Option(metavar="FILE.jsonl", help="the file to write, for jsonl:FILE.jsonl")],
    threshold: Annotated[
        float, typer.Option(help="a sentence that the metric scores lower is hallucinated, unless it names spans itself")
    ] = 50.0,
) -> None:
    """Mark the hallucinations in kept answers by a metric of factual consistency, for a lens of the model's own answers."""
    from kdray.artifacts.answers import read_answers
    from kdray.lens.annotations import statistics
    from kdray.lens.sources.jsonl import write_jsonl
    from kdray.score.annotate import annotate as annotated
    from kdray.score.standalone import open_metric

    file, use = _to_file(to), _use(metric)
    rows, failed = annotated(read_answers(answers), open_metric(use, "--metric"), use.name, threshold)
    for id, reason in list(failed.items())[:5]:
        err.print(f"[yellow]left out[/] {escape(id)}: {escape(reason)}", soft_wrap=True, highlight=False)
    if failed and not rows:
        raise InputError("--metric", f"no answer could be annotated: {next(iter(failed.values()))}", "see what it needs")
    if not rows:
        raise InputError(
            "ANSWERS", f"no answer to be annotated in {answers}", "a folder store/generate/NAME/attempt-NNN of a task with documents"
        )
    write_jsonl(rows, file)
    _print(str(file), [statistics(rows)])


@lens.command("import")
def import_(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE.pkl", help="a published classifier of Llama-2-7B; by default CNN/DailyMail's is fetched"),
    ] = None,
    to: Annotated[str | None, typer.Option(help="the folder to write; by default beside the file, or here")] = None,
) -> None:
    """Turn a published classifier into a lens without running what is in it; any other pickle is refused."""
    from kdray.lens.pickles import import_pickle
    from kdray.models.load import CACHE
    from kdray.spec.grid import PUBLISHED_LENS
    from kdray.spec.refs import parse_reference
    from kdray.store import Outer

    given = _to_folder(to) if to is not None else None
    source = file or Outer(CACHE).local_file(parse_reference(PUBLISHED_LENS), "lens")
    made = import_pickle(source)
    folder = given or _to_folder(str(file.with_suffix("") if file else source.stem))
    made.save(folder)
    out.print(f"lens {made.id} in {folder}: {tuple(made.weights.shape)}, window {made.window}", highlight=False)


@lens.command()
def rate(
    answers: Answers,
    model: Model,
    by: Annotated[Path, typer.Option(metavar="LENS", help="the lens's folder")],
    labelled: Annotated[str | None, typer.Option(metavar="FORMAT:FILE", help="annotations on which to test the lens")] = None,
    limit: Limit = None,
    template: Template = "chat",
    as_json: Json = False,
) -> None:
    """The factual rate of kept answers, and the lens's AUROC by the same model's attention."""
    from kdray.lens.classifier import Lens
    from kdray.lens.factual import factual_rate, has_drifted, lens_auroc
    from kdray.models import load
    from kdray.score.kept import read_kept

    made, annotated = Lens.load(by), _annotated(labelled, limit) if labelled else []
    loaded, tokenizer = load(model)
    rows = _aligned(annotated, loaded, tokenizer, template, 700)[0] if labelled else []
    result = factual_rate(loaded, tokenizer, read_kept(answers, lambda: tokenizer), made, _follow)
    scores = dict(result.scores)
    if labelled:
        scores["auroc"] = tested = lens_auroc(loaded, rows, made)
        if math.isnan(tested["value"]):
            reason = "all windows have one label" if tested["n"] else "every document trained the lens"
            err.print(f"[yellow]no AUROC[/] of {escape(labelled)}: {reason}", soft_wrap=True, highlight=False)
    if as_json:
        print(json.dumps({"scores": scores, "facts": result.facts}))
        return
    _print("factual rate", [{"metric": name, **score} for name, score in scores.items()])
    out.print(f"left out: {result.facts['left_out']}", highlight=False)
    trained_on = made.record.get("auroc_test")
    if "auroc" in scores and trained_on and has_drifted(scores["auroc"]["value"], trained_on):
        out.print(f"[yellow]the lens has drifted:[/] AUROC {scores['auroc']['value']:.1f} here, {trained_on:.1f} where it was trained")


def _annotated(name: str, limit: int | None) -> list[Marked]:
    """The annotated set FORMAT:FILE, or `limit` of it."""
    from kdray.lens.responses import read_responses
    from kdray.spec.components import components

    kind = name.partition(":")[0]
    if kind not in components(declare.Annotations):
        raise InputError("annotations", f"no format '{kind}'", did_you_mean(kind, components(declare.Annotations)))
    return read_responses(kind, _file_of(name), limit)


def _file_of(name: str) -> Path:
    """The file of the annotated set FORMAT:FILE."""
    return Path(local_path(name.partition(":")[2], "annotations"))


def _aligned(rows: list[Marked], model: Any, tokenizer: Any, template: str, max_words: int) -> tuple[list[Aligned], dict[str, Any]]:
    """An annotated set as tokens, with its numbers; problems are printed."""
    from kdray.data.templates import open_template
    from kdray.lens.responses import align_all
    from kdray.spec.folders import window_in
    from kdray.spec.load import parse_use

    def tell(text: str) -> None:
        err.print(f"[yellow]{escape(text)}[/]", soft_wrap=True, highlight=False)

    make_prompt = open_template(parse_use(template, declare.Template, "--template").model_dump())
    return align_all(rows, tokenizer, make_prompt, max_words, window_in(model.config.to_dict()), tell)


def _to_folder(to: str) -> Path:
    """The folder to write, which may be there already; what is wrong with it is found before any work."""
    path = _named(to)
    if path.exists() and not path.is_dir():
        raise InputError("--to", f"{path} is no folder", "give a folder")
    _require_writable(next(place for place in (path, *path.absolute().parents) if place.exists()))
    return path


def _to_file(to: str) -> Path:
    """As `_to_folder` for a file, whose folder must be there."""
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


def _use(text: str) -> Use:
    """A metric of factual consistency, as in a grid file."""
    from kdray.check.checks import check_metrics
    from kdray.check.machine import needs_of_metrics, require
    from kdray.models.load import CACHE
    from kdray.spec.components import components
    from kdray.spec.lens import finds_hallucinations
    from kdray.spec.load import parse_use
    from kdray.store import Outer

    use = parse_use(text, declare.Metric, "--metric")
    if not finds_hallucinations(use.name):
        raise InputError(
            "--metric",
            f"'{use.name}' is not about an answer's source",
            f"one of {', '.join(filter(finds_hallucinations, components(declare.Metric)))}",
        )
    require(needs_of_metrics({"--metric": use}), offline=False)
    check_metrics({"--metric": use}, Outer(CACHE))
    return use


def _metric(text: str) -> Callable[[list[Marked]], dict[str, Any]]:
    """What a metric is worth as a detector, for any annotated set."""
    from kdray.score.standalone import metric_auroc, open_metric
    from kdray.spec.components import declared

    use = _use(text)
    metric, score = open_metric(use, "--metric"), declared(declare.Metric, use.name).scores[0]
    return lambda rows: metric_auroc(rows, metric, score)


def _follow(items: Sequence[Any], title: str) -> Iterable[Any]:
    """A progress bar, where there is a terminal."""
    from rich.progress import track

    return track(items, title, console=err, disable=not err.is_terminal)


def _print(title: str, lines: Sequence[dict[str, Any]]) -> None:
    from rich.table import Table

    if not lines:
        return
    shown = Table(*lines[0], title=title, title_justify="left", box=None)
    for line in lines:
        shown.add_row(*(f"{value:.1f}" if isinstance(value, float) else str(value) for value in line.values()))
    out.print(shown)
    out.print()
