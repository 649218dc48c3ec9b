"""Does preparing data take memory that grows with the rows? Runs the real stage on made-up rows of two sizes.

    python -m benchmarks.prepare --rows 100000 1000000 --json prepare.json

Every size runs in a process of its own, with a Ray and a store of its own. The peak is the driver's (VmHWM, which
counts mapped files too); Ray's workers hold one slice of rows each, whatever the size.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from kdray.cli.progress import Terminal
from kdray.orchestration.session import ray_session
from kdray.orchestration.work import Work
from kdray.plan import make_plan
from kdray.spec import load_grid
from kdray.store import Locks, Outer, Store
from tests.tiny import write_grid

HELDOUT = 1000
TEXT = "Ada lives in Paris now and Ben is in Rome. "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000], help="source rows of each run")
    parser.add_argument(
        "--recipe", choices=["dolly", "text"], default="dolly", help="instructions, or documents of up to 1,000 tokens"
    )
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # a child: measure in this process
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.rows[0], given.recipe)))
        return
    results = []
    for rows in given.rows:
        command = [sys.executable, "-m", "benchmarks.prepare", "--one", "--rows", str(rows), "--recipe", given.recipe]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        results.append(json.loads(answer.splitlines()[-1]))
        print(
            "{rows:>10,} rows: {rows_per_second:>8,.0f} rows/s, driver's peak {peak_mb:,.0f} MB".format(**results[-1]),
            flush=True,
        )
    ratio = results[-1]["peak_mb"] / results[0]["peak_mb"]
    print(f"{results[-1]['rows'] / results[0]['rows']:g} times the rows: {ratio:.3f} times the memory")
    if given.json:
        given.json.write_text(
            json.dumps({"recipe": given.recipe, "runs": results, "memory_ratio": ratio}, indent=1) + "\n"
        )


def measure(rows: int, recipe: str) -> dict[str, float]:
    """Prepare `rows` rows in a temporary store; seconds are those of the stage alone."""
    with tempfile.TemporaryDirectory(prefix="kdray-") as folder:
        source = Path(folder) / "source.jsonl"
        data = f"{{source: 'file:{source}', recipe: {recipe}, max_prompt: 96, max_length: 128, heldout: {HELDOUT}}}"
        grid = load_grid(
            write_grid(Path(folder), data=data, teacher="null", axes="{lr: [1.0e-3], batch: [4], alpha: [0]}")
        )
        write_source(source, rows, recipe)
        store = Store(grid.runtime.store)
        outer = Outer(store.root)
        plan = make_plan(grid, outer)
        with Terminal(Console(quiet=True)) as progress, ray_session(grid.runtime) as resources, Locks() as locks:
            from kdray.stages.model import model
            from kdray.stages.prepare import prepare

            work = Work(plan, store, outer, locks, progress, resources)
            model([plan.prepare.inputs["tokenizer"]], work)
            before, began = peak(), time.monotonic()
            prepare([plan.prepare], work)
            seconds = time.monotonic() - began
        artifact = store.get(plan.prepare.key)
        assert artifact is not None
        numbers = {
            "rows": rows,
            "seconds": seconds,
            "rows_per_second": rows / seconds,
            "before_mb": before,
            "peak_mb": peak(),
        }
        return artifact.facts | numbers


def write_source(path: Path, rows: int, recipe: str) -> None:
    with path.open("w") as file:
        for i in range(rows):
            if recipe == "text":
                row = {"text": TEXT * (i % 60)}
            else:
                row = {
                    "instruction": f"Where does number {i} live?",
                    "context": "",
                    "response": f"Number {i} lives in Paris.",
                }
            file.write(json.dumps(row) + "\n")


def peak() -> float:
    """The largest resident memory of this process so far, in MB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, "this needs Linux"
    return int(found[1]) / 1000


if __name__ == "__main__":
    main()
