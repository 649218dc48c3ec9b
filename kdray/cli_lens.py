"""The command line of Lookback Lens: `kdray lens --help`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from kdray.spec.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from kdray.lens.align import Aligned

lens = typer.Typer(no_args_is_help=True, help="Detect contextual hallucinations by what a model's attention looks back at.")
out = Console()
err = Console(stderr=True)
Model = Annotated[str, typer.Option(help="a reference such as file:FOLDER or hf:org/name@commit")]
Annotations = Annotated[str, typer.Argument(metavar="FORMAT:FILE", help="annotated responses, for example faithbench:faithbench.jsonl")]
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
    as_json: Json = False,
) -> None:
    """Train and test lenses on an annotated set: the thesis's Tables 4.1 to 4.4, 4.9 and 4.10."""
    from kdray.lens.tables import study
    from kdray.models import load

    loaded, tokenizer = load(model)
    sets: dict[str, list[Aligned]] = {}
    summary: list[dict[str, Any]] = []
    for name in dict.fromkeys(name for name in (source, target) if name):
        short = name.partition(":")[0]
        label = name if short in sets else short
        sets[label], line = _read(name, tokenizer, template, limit, max_words)
        summary.append({"set": label, **line})
    made = study(loaded, sets, window, baselines)
    tables = {"annotations": summary, "numbers": made.counts, "AUROC": made.methods, "heads": made.heads, "layers": made.layers}
    if as_json:
        print(json.dumps(tables))
        return
    for title, lines in tables.items():
        _print(title, lines)


@lens.command()
def train(
    source: Annotations,
    model: Model,
    to: Annotated[Path, typer.Option(help="the folder to write")],
    family: Annotated[str, typer.Option(help="for the record")] = "",
    window: Window = 8,
    limit: Limit = None,
    max_words: MaxWords = 700,
    template: Template = "chat",
) -> None:
    """Train a lens on sliding windows of an annotated set, and keep it as a folder."""
    from kdray.lens.classifier import train_lens
    from kdray.lens.evaluate import two_folds
    from kdray.lens.features import LOOKBACK, make_tables
    from kdray.models import load
    from kdray.store.io import sha256

    loaded, tokenizer = load(model)
    rows, line = _read(source, tokenizer, template, limit, max_words)
    data = make_tables(loaded, rows, [window])[LOOKBACK, window]
    folds = two_folds(data)
    origin = {"family": family, "model": model, "annotations": source, "sha256": sha256(Path(source.partition(":")[2])), **line}
    record = {**origin, "windows": len(data.labels), "auroc_train": folds.train, "auroc_test": folds.test}
    made = train_lens(data, loaded.config.num_hidden_layers, window, record)
    made.save(to)
    out.print(f"lens {made.id} in {to}: AUROC {folds.test:.1f} on held-out documents ({folds.train:.1f} on its own)", highlight=False)


@lens.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE.pkl", help="a published classifier of Llama-2-7B")],
    to: Annotated[Path | None, typer.Option(help="the folder to write; by default beside the file")] = None,
) -> None:
    """Turn a published classifier into a lens without running what is in it; any other pickle is refused."""
    from kdray.lens.pickles import import_pickle

    made, folder = import_pickle(file), to or file.with_suffix("")
    made.save(folder)
    out.print(f"lens {made.id} in {folder}: {tuple(made.weights.shape)}, window {made.window}", highlight=False)


@lens.command()
def rate(
    answers: Annotated[Path, typer.Argument(metavar="ANSWERS", help="a folder of kept answers: store/generate/NAME/attempt-NNN")],
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
    from kdray.stages.generate import read_answers

    loaded, tokenizer = load(model)
    made = Lens.load(by)
    result = factual_rate(loaded, tokenizer, read_answers(answers), made)
    scores = dict(result.scores)
    if labelled:
        rows, _ = _read(labelled, tokenizer, template, limit, 700)
        scores["auroc"] = lens_auroc(loaded, rows, made)
    if as_json:
        print(json.dumps({"scores": scores, "facts": result.facts}))
        return
    _print("factual rate", [{"metric": name, **score} for name, score in scores.items()])
    out.print(f"left out: {result.facts['left_out']}", highlight=False)
    trained_on = made.record.get("auroc_test")
    if "auroc" in scores and trained_on and has_drifted(scores["auroc"]["value"], trained_on):
        out.print(f"[yellow]the lens has drifted:[/] AUROC {scores['auroc']['value']:.1f} here, {trained_on:.1f} where it was trained")


def _read(name: str, tokenizer: Any, template: str, limit: int | None, max_words: int) -> tuple[list[Aligned], dict[str, Any]]:
    """The annotated set FORMAT:FILE as tokens, with its numbers; problems are printed."""
    import importlib

    from kdray.lens.align import align
    from kdray.lens.annotations import statistics
    from kdray.spec.components import component, components

    kind, _, path = name.partition(":")
    if kind not in components("annotations"):
        raise InputError("annotations", f"no format '{kind}'", did_you_mean(kind, components("annotations")))
    component("template", template, "template")
    read = getattr(importlib.import_module(f"kdray.lens.sources.{kind}"), kind)
    make_prompt = getattr(importlib.import_module(f"kdray.data.templates.{template}"), template)
    rows = list(read(Path(path)))
    if limit is not None and limit < len(rows):
        rows = [rows[i * len(rows) // limit] for i in range(limit)]
    aligned, problems = align(rows, tokenizer, make_prompt, max_words)
    for problem in problems[:5]:
        err.print(f"[yellow]left out[/] {escape(problem.id)}: {escape(problem.reason)}", soft_wrap=True, highlight=False)
    if len(problems) > 5:
        err.print(f"[yellow]left out[/] {len(problems) - 5} more", highlight=False)
    return aligned, {**statistics(rows), "left_out": len(problems)}


def _print(title: str, lines: Sequence[dict[str, Any]]) -> None:
    from rich.table import Table

    if not lines:
        return
    shown = Table(*lines[0], title=title, title_justify="left", box=None)
    for line in lines:
        shown.add_row(*(f"{value:.1f}" if isinstance(value, float) else str(value) for value in line.values()))
    out.print(shown)
    out.print()
