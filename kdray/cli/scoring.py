"""Scoring models that kdray did not train, and answers that somebody else's models gave."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from kdray.cli.answers_given import score_given
from kdray.cli.running import do
from kdray.cli.shared import Insecure
from kdray.spec import InputError


def score(
    context: typer.Context,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="REF", help="a model to score, as hf:org/name or file:path; may be given again"),
    ] = None,
    tasks: Annotated[
        str, typer.Option(help="'xsum, {name: arc_easy, source: \"file:arc.jsonl\"}', as in a grid file")
    ] = "",
    answers: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="instead of models: answers of any, a jsonl of id, source, answer, reference, model"
        ),
    ] = None,
    metrics: Annotated[str, typer.Option(help="of answers, beside each task's own: 'hhem, chrf'")] = "",
    decoding: Annotated[str, typer.Option(help="'greedy, dola', as in a grid file")] = "greedy",
    choices: Annotated[
        str, typer.Option(help="how multiple-choice tasks are scored: 'greedy, {name: dola, layers: high}'")
    ] = "greedy",
    lens: Annotated[
        str | None,
        typer.Option(metavar="REF", help="a lens that fits the models, for factual rates: file:FOLDER, or published"),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="only so many examples of each task")] = None,
    template: Annotated[
        str, typer.Option(help="of the prompts: alpaca, or '{name: chat, arguments: {enable_thinking: false}}'")
    ] = "chat",
    batch: Annotated[int, typer.Option(min=1)] = 8,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16")] = "float32",
    store: Annotated[str, typer.Option(help="where scores are kept; every node must see it")] = "runs/scores",
    mlflow: Annotated[str | None, typer.Option(help="tracking URI; by default a file in the store")] = None,
    insecure_cluster: Insecure = False,
) -> None:
    """Score models that kdray did not train: the same records, table and MLflow runs as for those of a grid.

    With --answers no model is asked: what is in the file is measured by rouge and the metrics named.
    """
    if answers is not None:
        _require_answers_alone(context)
        score_given(answers, metrics, store)
        return
    for option, value in (("--model", model), ("--tasks", tasks.strip())):
        if not value:
            raise InputError(option, "missing", "name models and tasks, or give --answers FILE")
    assert model
    from kdray.check.checks import check_scoring
    from kdray.data.look import look_into
    from kdray.plan import make_scoring_plan
    from kdray.run import resolved
    from kdray.spec.grid import Grid
    from kdray.spec.load import parse_scoring
    from kdray.spec.paths import local_path, tracking_address
    from kdray.spec.refs import names_of
    from kdray.spec.sections.running import Runtime
    from kdray.store import Outer, Store

    with _named_as_options():
        models = names_of(model, "--model")
        scoring = parse_scoring(
            tasks, metrics, decoding, lens, limit, template, choices=choices, batch=batch, dtype=dtype
        )
        folder = os.path.abspath(local_path(store, "--store", seen_by_all=True))
        uri = None if mlflow is None else tracking_address(mlflow, "--mlflow")
        runtime = Runtime.model_validate({"store": folder, "mlflow": uri})
        spec, opened = Grid.only_scoring(Path(folder).name, *scoring, runtime), Store(folder)
        outer = Outer(opened.root)
        check_scoring(spec, models, outer, look=look_into)
        do(resolved(lambda: make_scoring_plan(spec, models, outer), outer), opened, outer, insecure_cluster)


def _require_answers_alone(context: typer.Context) -> None:
    """Whether nothing was said beside --answers that only models could heed.

    Raises:
        InputError: an option about models or how they are asked.
    """
    for name in context.params:
        source = context.get_parameter_source(name)
        if source and source.name == "COMMANDLINE" and name not in ("answers", "metrics", "store"):
            option = f"--{name.replace('_', '-')}"
            why = "a lens reads the attention of the model that answered" if name == "lens" else "no model is asked"
            raise InputError(option, f"beside --answers, where {why}", "leave it out, or score the model by --model")


@contextlib.contextmanager
def _named_as_options() -> Iterator[None]:
    """What is wrong with a field of a grid is said of the option that it stands for."""
    try:
        yield
    except InputError as error:
        section, _, field = error.field.partition(".")
        if section in ("score", "runtime"):
            raise InputError(f"--{field}", error.found, error.allowed) from None
        if error.field.startswith("data.template"):
            raise InputError(error.field.replace("data.template", "--template"), error.found, error.allowed) from None
        raise InputError("--lens" if section == "lens" else error.field, error.found, error.allowed) from None
