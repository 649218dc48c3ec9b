"""A run in simulated time: how long a grid takes on a cluster, and how much of that cluster it uses."""

from __future__ import annotations

from typing import Annotated

import typer

from kdray.cli.shared import GridFile, Json, print_json, wanted_of


def simulate(
    grid: GridFile,
    nodes: Annotated[int, typer.Option(help="machines of the cluster")] = 1,
    gpus: Annotated[int, typer.Option(help="GPUs of each")] = 8,
    card: Annotated[str, typer.Option(help="what they are: H100, H200, A100 or RTX4090")] = "H100",
    mttf: Annotated[
        str | None, typer.Option(help="the time until a node is lost, in the mean: 3h, 90m; by default none is")
    ] = None,
    seed: Annotated[int, typer.Option(help="of when nodes are lost")] = 0,
    rows: Annotated[int | None, typer.Option(min=1, help="rows to train on, before the data are prepared")] = None,
    as_json: Json = False,
) -> None:
    """Play a run of a grid on a cluster, without one: hours, and how much of the GPUs is used.

    The decisions are those of `kdray run` itself: which point is next, how many train side by side, what is scored
    meanwhile and by how many. How long each step takes says the price model (docs/cost.md). No Ray, no GPU, no
    network; what is done already is not done again.

    * `kdray simulate grids/qwen25_7b.yaml --nodes 4 --gpus 8 --rows 11852`: is a cluster worth its price?

    * the same with `--mttf 3h`: what do preemptions cost, and is runtime.checkpoint_minutes small enough?

    It prints hours, utilisation from the first point to the last score, idle GPU-hours by cause, and what to change
    where that is known. docs/simulate.md has what it takes for granted, and the paper's grids on four clusters.
    """
    from kdray.cost.cards import card_of
    from kdray.simulate.given import Losses, seconds_of
    from kdray.simulate.shown import lines, listed, simulated
    from kdray.store import Outer

    of, losses = card_of(card), Losses(seconds_of(mttf, "--mttf"), seed) if mttf is not None else None
    made, store = wanted_of(grid)
    found, left_out = simulated(made, store, Outer(store.root), of, nodes, gpus, losses, rows)
    if as_json:
        print_json(listed(found, of) | {"left_out": left_out}, indent=1)
        return
    for line in lines(found, of, losses):
        print(line)
    if left_out:
        print(f"not counted: {', '.join(left_out)}")
