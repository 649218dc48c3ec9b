"""Memory of the driver while it deals out the prompts of many models, beside what they would take with every model.

    python -m benchmarks.driver [MODELS] [PROMPTS] [WORDS] [--json]

Models are small random ones, made for it, and so is the file of PROMPTS articles of WORDS words; nothing is answered.
Printed are the driver's peak, what of it came with the prompts, the bytes of all items as they go to actors, and the
baseline of the same run: the prompts' own bytes times the models, which a driver would hold that gave them away whole.
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
import resource
import shutil
import tempfile
from pathlib import Path

from rich.console import Console

from kdray.cli.progress import Terminal
from kdray.orchestration.resources import Node, Resources
from kdray.orchestration.work import Work
from kdray.plan import make_scoring_plan, reading
from kdray.plan.inputs import GenerateInputs
from kdray.run import resolved
from kdray.score.prompt_file import read_prompts
from kdray.spec.grid import Grid
from kdray.spec.load import parse_scoring
from kdray.spec.refs import names_of
from kdray.spec.sections.running import Runtime
from kdray.stages.generate import Asked, Generating
from kdray.store import Locks, Outer, Store
from tests.tiny import write_model

WORDS = ("Ada", "lives", "in", "Paris", "now", "and", "Ben", "is", "at", "work", "near", "the", "river", ".")


def peak() -> float:
    """Of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(models: int, prompts: int, words: int, folder: Path) -> dict[str, float]:
    """What dealing out takes, in MB."""
    dice = random.Random(0)
    with (folder / "xsum.jsonl").open("w") as file:
        for _ in range(prompts):
            file.write(
                json.dumps({"document": " ".join(dice.choices(WORDS, k=words)), "summary": "Ada works ."}) + "\n"
            )
    for i in range(models):
        write_model(folder / f"model{i}", layers=1, seed=i)
    refs = names_of([f"file:{folder}/model{i}" for i in range(models)], "--model")
    scoring = parse_scoring(
        f"{{name: xsum, source: 'file:{folder}/xsum.jsonl'}}", "", "greedy", None, None, "chat", batch=16
    )
    store = Store(folder / "store")
    outer, grid = (
        Outer(store.root),
        Grid.only_scoring("bench", *scoring, Runtime.model_validate({"store": str(store.root)})),
    )
    plan = resolved(lambda: make_scoring_plan(grid, refs, outer), outer)
    for step, name in zip(plan.models.values(), refs, strict=True):
        attempt = store.begin(step.key, step.payload or {})
        shutil.copytree(folder / str(name), attempt.path, dirs_exist_ok=True)
        attempt.seal(None)
    steps, before = reading(plan.steps(), GenerateInputs), peak()
    with Terminal(Console(quiet=True)) as progress, Locks() as locks:
        work = Work(plan, store, outer, locks, progress, Resources((Node(8, 8),), 1))
        stage = Generating(steps, work)
        stage.look()
        groups = stage.begin(work.claim_ready(steps))
        items = sum(len(pickle.dumps(group)) for group in groups)
        assert len({item.key for group in groups for item in group}) == models
        [asked] = stage.asked.values()
        assert isinstance(asked, Asked)
        whole = len(pickle.dumps(read_prompts(asked.path, range(prompts))))
    found = {"peak_MB": peak(), "by_prompts_MB": peak() - before, "items_MB": items / 2**20}
    return found | {"with_every_model_MB": models * whole / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="?", type=int, default=92)
    parser.add_argument("prompts", nargs="?", type=int, default=22_824)
    parser.add_argument("words", nargs="?", type=int, default=400)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = measured(given.models, given.prompts, given.words, Path(name))
    found["ratio"] = found["peak_MB"] / found["with_every_model_MB"]
    if given.json:
        print(json.dumps(found))
    else:
        print(
            f"{given.models} models, {given.prompts:,} prompts:",
            *(f"{key} {value:,.3g}" for key, value in found.items()),
        )


if __name__ == "__main__":
    main()
