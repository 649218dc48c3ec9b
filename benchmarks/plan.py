"""Seconds that the plan of a large grid and the states of its steps take, beside the least that its ids can cost.

    python -m benchmarks.plan [POINTS] [--json]

The grid has a student, a teacher and three tasks, two of them answered, on files that are made for it; its store is
empty. The baseline, in the same run, writes and hashes the payloads of the same steps and nothing else. Seconds are of
CPU time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from kdray.plan import make_plan
from kdray.spec.load import parse_grid
from kdray.store import Outer, Store

ROWS = ({"instruction": "Say 1.", "context": "", "response": "1."}, {"document": "It rained.", "summary": "Rain."})


def grid_of(points: int, folder: Path) -> str:
    """The text of a grid of so many points, rounded up to hundreds, and the files that it names."""
    for role in ("student", "teacher"):
        (folder / role).mkdir()
        (folder / role / "config.json").write_text(json.dumps({"model_type": "llama", "of": role}))
    for name, row in zip(("rows.jsonl", "xsum.jsonl"), ROWS, strict=True):
        (folder / name).write_text(json.dumps(row) + "\n")
    hundreds = range(1, 1 + -(-points // 100))
    tree = {
        "name": "large",
        "family": "toy",
        "teacher": {"model": f"file:{folder}/teacher"},
        "student": {"model": f"file:{folder}/student"},
        "data": {"source": f"file:{folder}/rows.jsonl", "template": "alpaca"},
        "train": {"steps": 4, "keep": [2]},
        "axes": {
            "lr": [i * 1e-5 for i in hundreds],
            "batch": [2, 4],
            "alpha": [0, 0.1, 1, 10, 100],
            "seed": list(range(10)),
        },
        "score": {
            "tasks": ["heldout_loss", "heldout_answers", {"name": "xsum", "source": f"file:{folder}/xsum.jsonl"}]
        },
        "runtime": {"store": f"{folder}/store"},
    }
    return yaml.safe_dump(tree)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("points", nargs="?", type=int, default=10_000)
    arguments.add_argument("--json", action="store_true")
    given = arguments.parse_args()
    seconds: dict[str, float] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        begun = time.process_time()
        made = call()
        seconds[name] = round(time.process_time() - begun, 2)
        return made

    with tempfile.TemporaryDirectory() as folder:
        text = grid_of(given.points, Path(folder))
        grid = timed("read", lambda: parse_grid(text))
        store = Store(grid.runtime.store)
        plan = timed("plan", lambda: list((made := make_plan(grid, Outer(store.root))).steps()) and made)
        steps = list(plan.steps())
        timed("states", lambda: [step.state(store) for step in steps])
    payloads = [step.payload for step in steps]
    timed(
        "hashes",
        lambda: [hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest() for payload in payloads],
    )
    ratios = {name: round(seconds[name] / seconds["hashes"], 2) for name in ("plan", "states")}
    memory = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    found = {
        "points": len(plan.points),
        "steps": len(steps),
        "seconds": seconds,
        "to hashes": ratios,
        "peak MB": memory,
    }
    json.dump(found, sys.stdout, indent=None if given.json else 1)
    print()


if __name__ == "__main__":
    main()
