"""A model that learns from its own citations, without a grid."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.markup import escape

from kdray.cli.lens_given import Answers, Model, follow, require_answers, to_folder
from kdray.cli.shared import FAILED, err, finite, say
from kdray.spec.errors import InputError

RECORD = "align.json"
HELDOUT_BATCH = 4
WARMUP = 0.1


def align(
    answers: Answers,
    model: Model,
    to: Annotated[str, typer.Option(metavar="FOLDER", help="where the trained model is written")],
    lr: Annotated[float, typer.Option(callback=finite, help="the largest learning rate")] = 5e-7,
    beta: Annotated[float, typer.Option(callback=finite, help="scale of the difference of the two responses")] = 2.5,
    gamma: Annotated[float, typer.Option(callback=finite, help="margin that it is to have")] = 1.4,
    batch: Annotated[int, typer.Option(min=1, help="pairs of an optimiser step")] = 8,
    micro_batch: Annotated[int | None, typer.Option(min=1, help="pairs in memory at once; by default all")] = None,
    epochs: Annotated[float, typer.Option(callback=finite, help="the length")] = 1.0,
    seed: Annotated[
        int, typer.Option(min=0, help="of the order of pairs, and of how their citations are balanced")
    ] = 0,
) -> None:
    """Train a model to cite: what it has cited itself, the best of several against its plain citations (SimPO).

    ANSWERS are its own, by the decoding selfcite. FOLDER gets a plain model, to be scored like any, and align.json.
    """
    for name, value in (("--lr", lr), ("--beta", beta), ("--epochs", epochs)):
        if value <= 0:
            raise InputError(name, f"{value:g}", "must be above 0")
    folder = to_folder(to)
    require_answers(answers)

    from kdray.models import load
    from kdray.models.head import ResponseModel
    from kdray.models.load import own_device, save, token_count
    from kdray.train.engines import Ranks
    from kdray.train.loop import DivergedError
    from kdray.train.pairs import PairLoop, read_pairs
    from kdray.train.settings import Settings

    loaded, tokenizer = load(model, field="--model")
    if loaded.config.is_encoder_decoder:
        raise InputError("--model", f"{model} is an encoder-decoder", "give a causal model")
    pairs = read_pairs(answers, tokenizer, seed)
    settings = Settings(
        lr=lr,
        batch=batch,
        alpha=0.0,
        seed=seed,
        unit="epochs",
        length=epochs,
        schedule={"name": "cosine", "params": {"floor": 0.0}},
        warmup=WARMUP,
        weight_decay=0.0,
        clip=1.0,
        dtype="float32",
        packing=False,
        simpo={"beta": beta, "gamma": gamma},
    )
    loop = PairLoop(
        ResponseModel(loaded).to(own_device()),
        pairs,
        settings,
        signal=None,
        vocab_size=token_count(tokenizer),
        ranks=Ranks(),
        micro_batch=micro_batch,
    )
    told: dict[str, Any] = {"answers": pairs.answers, "pairs": len(pairs) // 2, "heldout": len(pairs.heldout)}
    told["before"] = loop.heldout(HELDOUT_BATCH)
    try:
        for _ in zip(follow(range(loop.total_steps), "align"), loop.steps(), strict=True):
            pass
    except DivergedError as error:
        err.print(f"[red]failed[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        raise typer.Exit(FAILED) from None
    told["after"] = loop.heldout(HELDOUT_BATCH)
    folder.mkdir(parents=True, exist_ok=True)
    save(loaded, tokenizer, folder)
    given = {"model": model, "of": str(answers), "lr": lr, "beta": beta, "gamma": gamma, "batch": batch}
    record = {**given, "epochs": epochs, "seed": seed, **told, "steps": loop.history}
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    trained = f"{len(pairs.train)} pairs of {pairs.answers} answers, {loop.total_steps} steps"
    say(f"{folder}: trained on {trained}")
    for name in ("before", "after"):
        if told[name]:
            numbers = ", ".join(f"{key.removeprefix('heldout_')} {value:.4f}" for key, value in told[name].items())
            say(f"{name}, on {told['heldout']} pairs that were kept out: {numbers}")
