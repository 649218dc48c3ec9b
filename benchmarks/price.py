"""What the price on a core says beside what a grid's pieces take: steps of its first point and of its first tuned
teacher, looks at the held-out rows, and a batch of their prompts answered.

    python -m benchmarks.price GRID [--steps 3] [--tokens 24]

of a grid whose models and data are prepared, without soft labels. One thread; seconds are this process's own, so that
other work on the machine changes little. `kdray plan --card CPU` adds such pieces up.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks.clocks import now
from kdray.artifacts.rows import Rows
from kdray.cli.looking import WORKER
from kdray.cost import time
from kdray.cost.amounts import HELDOUT_BATCH, Amounts, amounts_of
from kdray.cost.cards import Card
from kdray.cost.decoder import FLOAT32, Decoder
from kdray.cost.memory import Training
from kdray.cost.models import decoders_of
from kdray.models.core import measured
from kdray.models.generation import generate_greedy
from kdray.models.head import ResponseModel
from kdray.models.load import load_folder, load_tokenizer
from kdray.orchestration.trainer import settings_of
from kdray.plan import Plan, Step, make_plan
from kdray.plan.inputs import TrainInputs
from kdray.spec import load_grid
from kdray.store import Outer, Store
from kdray.train.engines import Ranks
from kdray.train.loop import Loop
from kdray.train.settings import Settings

Line = tuple[str, float, float]  # what, seconds by formula and as measured


def seconds(work: Callable[[], object]) -> float:
    began = now("cpu")
    work()
    return now("cpu") - began


def trained(
    step: Step[TrainInputs],
    folder: Path,
    rows: Rows,
    model: Decoder,
    amounts: Amounts,
    card: Card,
    given: argparse.Namespace,
) -> Iterator[Line]:
    """A step of a training, a look at the held-out rows, and a batch of answers to them."""
    settings: Settings = settings_of({"alpha": 0.0} | step.params)
    how = Training(1, "ddp", 0, settings.dtype == "bfloat16", False, settings.rank, settings.method == "qlora")
    response, tokens = amounts.response, amounts.tokens
    loaded, tokenizer = load_folder(folder, device="cpu")[0], load_tokenizer(folder)
    loop = Loop(
        ResponseModel(loaded),
        rows,
        settings,
        signal=None,
        vocab_size=len(tokenizer),
        ranks=Ranks(0, 1),
        tokenizer=tokenizer,
    )
    steps = loop.steps()
    taken = statistics.fmean(seconds(lambda: next(steps)) for _ in range(given.steps))
    operations = 3 * settings.batch * model.forward(tokens, tokens / 2, response)
    yield f"{step.kind}: a step", time.of_training_step(model, how, card, operations), taken
    looked = amounts.heldout * model.forward(tokens, tokens / 2, response)
    look = time.of_looking(model, how, card, looked, amounts.heldout / HELDOUT_BATCH)
    yield f"{step.kind}: held-out rows", look, seconds(lambda: loop.heldout(HELDOUT_BATCH))
    asked = [rows.input_ids(row)[: rows.prompt_lengths[row]] for row in rows.heldout.tolist()[: given.batch]]
    answers = time.of_answers(model, card, 1, FLOAT32, len(asked), len(asked), amounts.prompt, given.tokens, vllm=False)
    loaded.eval().float()
    made = seconds(lambda: generate_greedy(loaded, tokenizer, asked, given.tokens))
    yield f"{step.kind}: {len(asked)} answers of {given.tokens} tokens", answers, made


def lines(plan: Plan, store: Store, outer: Outer, given: argparse.Namespace) -> Iterator[Line]:
    decoders, unknown = decoders_of(plan, store, outer)
    amounts, data = amounts_of(plan, store), plan.prepare and store.get(plan.prepare.key)
    if not amounts or not data or unknown:
        raise SystemExit(f"run {given.grid} up to its data first")
    card, rows = measured(WORKER), Rows(data.path)
    print(
        f"{card.products / card.float32 / 1e9:.0f} GFLOP/s in float32, {card.products / 1e9:.0f} in bfloat16,"
        f" {card.bandwidth / 1e9:.1f} GB/s of AdamW, {card.start:.1f} s a start"
    )
    for step, role in [
        (plan.points[0].train, "student"),
        *((made, role) for role, made in plan.models.items() if isinstance(made.inputs, TrainInputs)),
    ]:
        made = store.get(plan.models[role].untuned.key)
        assert made
        yield from trained(step, made.path, rows, decoders[role], amounts, card, given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16, help="prompts that are answered together")
    parser.add_argument("--tokens", type=int, default=24, help="of their answers")
    given = parser.parse_args()
    torch.set_num_threads(1)
    grid = load_grid(given.grid)
    store = Store(Path(grid.runtime.store))
    outer = Outer(store.root)
    for what, formula, taken in lines(make_plan(grid, outer), store, outer, given):
        print(f"{what:<32} {formula:6.1f} s by formula {taken:6.1f} s measured  x {formula / taken:.2f}", flush=True)


if __name__ == "__main__":
    main()
