"""The command line of Lookback Lens: `kdray lens --help`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from kdray.cli.lens_given import (
    Annotations,
    Answers,
    Limit,
    MaxWords,
    Model,
    Template,
    Window,
    aligned_set,
    annotated_set,
    detector,
    follow,
    metric_use,
    require_answers,
    show,
    to_file,
    to_folder,
)
from kdray.cli.lens_making import guide, map_, train
from kdray.cli.shared import Json, err, finite, out, print_json, say
from kdray.spec.errors import InputError

if TYPE_CHECKING:
    from kdray.lens.align import Aligned

lens = typer.Typer(
    no_args_is_help=True, help="Detect contextual hallucinations by what a model's attention looks back at."
)
lens.command()(train)
lens.command()(guide)
lens.command("map")(map_)


@lens.command()
def table(
    source: Annotations,
    model: Model,
    target: Annotated[
        str | None, typer.Option(metavar="FORMAT:FILE", help="another annotated set, to transfer to and from")
    ] = None,
    window: Window = 8,
    limit: Limit = None,
    max_words: MaxWords = 700,
    template: Template = "chat",
    baselines: Annotated[bool, typer.Option(help="classifiers on hidden states too")] = True,
    metric: Annotated[
        str | None, typer.Option(help="one of factual consistency as a detector of spans: 'hhem'")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare detectors on an annotated set, by two folds of its documents: the thesis's Tables 4.1 to 4.4, 4.9 and
    4.10.
    """
    from kdray.lens.tables import study
    from kdray.models import load

    judge = detector(metric) if metric else None
    annotated = {name: annotated_set(name, limit) for name in (source, target) if name}
    loaded, tokenizer = load(model, field="--model")
    sets: dict[str, list[Aligned]] = {}
    summary: list[dict[str, Any]] = []
    judged: list[dict[str, Any]] = []
    for name, rows in annotated.items():
        short = name.partition(":")[0]
        label = name if short in sets else short
        sets[label], line = aligned_set(rows, loaded, tokenizer, template, max_words)
        summary.append({"set": label, **line})
        if judge:
            judged.append({"set": label, "metric": metric, **judge(rows)})
    made = study(loaded, sets, window, baselines, follow)
    tables = {
        "annotations": summary,
        "numbers": made.counts,
        "AUROC": made.methods,
        "heads": made.heads,
        "layers": made.layers,
    }
    tables |= {"a metric on predefined spans": judged} if judged else {}
    if as_json:
        print_json(tables)
        return
    for title, lines in tables.items():
        show(title, lines)


@lens.command()
def annotate(
    answers: Answers,
    metric: Annotated[str, typer.Option(help="'lettucedetect', or '{name: judge, model: gpt-4o}', as in a grid file")],
    to: Annotated[str, typer.Option(metavar="FILE.jsonl", help="the file to write, for jsonl:FILE.jsonl")],
    threshold: Annotated[
        float,
        typer.Option(
            callback=finite,
            help="a sentence that the metric scores lower is hallucinated, unless it names spans itself",
        ),
    ] = 50.0,
) -> None:
    """Mark the hallucinations in kept answers by a metric of factual consistency, for a lens of the model's own
    answers.
    """
    from kdray.artifacts.answers import read_answers
    from kdray.lens.annotations import statistics
    from kdray.lens.sources.jsonl import write_jsonl
    from kdray.score.annotate import annotate as annotated
    from kdray.score.standalone import open_metric
    from kdray.spec.lens import finds_hallucinations

    file, use = to_file(to), metric_use(metric, finds_hallucinations)
    require_answers(answers)
    rows, failed = annotated(read_answers(answers), open_metric(use, "--metric"), use.name, threshold)
    for id, reason in list(failed.items())[:5]:
        err.print(f"[yellow]left out[/] {escape(id)}: {escape(reason)}", soft_wrap=True, highlight=False)
    if failed and not rows:
        raise InputError(
            "--metric", f"no answer could be annotated: {next(iter(failed.values()))}", "see what it needs"
        )
    if not rows:
        raise InputError(
            "ANSWERS",
            f"no answer to be annotated in {answers}",
            "a folder store/generate/NAME/attempt-NNN of a task with documents",
        )
    write_jsonl(rows, file)
    show(str(file), [statistics(rows)])


@lens.command("import")
def import_(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE.pkl", help="a published classifier of Llama-2-7B; by default CNN/DailyMail's is fetched"
        ),
    ] = None,
    to: Annotated[str | None, typer.Option(help="the folder to write; by default beside the file, or here")] = None,
) -> None:
    """Turn a published classifier into a lens without running what is in it; any other pickle is refused."""
    from kdray.lens.pickles import import_pickle
    from kdray.models.load import CACHE
    from kdray.spec.refs import parse_reference
    from kdray.spec.sections.scoring import PUBLISHED_LENS
    from kdray.store import Outer

    given = to_folder(to) if to is not None else None
    source = file or Outer(CACHE).local_file(parse_reference(PUBLISHED_LENS), "lens")
    made = import_pickle(source)
    folder = given or to_folder(str(file.with_suffix("") if file else source.stem))
    made.save(folder)
    say(f"lens {made.id} in {folder}: {tuple(made.weights.shape)}, window {made.window}")


@lens.command()
def rate(
    answers: Answers,
    model: Model,
    by: Annotated[Path, typer.Option(metavar="LENS", help="the lens's folder")],
    labelled: Annotated[
        str | None, typer.Option(metavar="FORMAT:FILE", help="annotations on which to test the lens")
    ] = None,
    limit: Limit = None,
    template: Template = "chat",
    as_json: Json = False,
) -> None:
    """The factual rate of kept answers, and the lens's AUROC by the same model's attention."""
    from kdray.lens.classifier import Lens
    from kdray.lens.factual import factual_rate, has_drifted, lens_auroc
    from kdray.models import load
    from kdray.score.kept import read_kept

    made, annotated = Lens.load(by), annotated_set(labelled, limit) if labelled else []
    require_answers(answers)
    loaded, tokenizer = load(model, field="--model")
    rows = aligned_set(annotated, loaded, tokenizer, template, 700)[0] if labelled else []
    result = factual_rate(loaded, tokenizer, read_kept(answers, lambda: tokenizer), made, follow)
    scores = dict(result.scores)
    if labelled:
        scores["auroc"] = tested = lens_auroc(loaded, rows, made)
        if math.isnan(tested["value"]):
            reason = "all windows have one label" if tested["n"] else "every document trained the lens"
            err.print(f"[yellow]no AUROC[/] of {escape(labelled)}: {reason}", soft_wrap=True, highlight=False)
    if as_json:
        print_json({"scores": scores, "facts": result.facts})
        return
    show("factual rate", [{"metric": name, **score} for name, score in scores.items()])
    say(f"left out: {result.facts['left_out']}")
    trained_on = made.record.get("auroc_test")
    if "auroc" in scores and trained_on and has_drifted(scores["auroc"]["value"], trained_on):
        out.print(
            f"[yellow]the lens has drifted:[/] AUROC {scores['auroc']['value']:.1f} here, {trained_on:.1f} where it was"
            " trained"
        )
