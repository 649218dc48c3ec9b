"""How MLflow's comparison page holds out as a grid grows: seconds to mirror it, and to answer what the page asks for.

    python -m benchmarks.tracking [RUNS ...] [--steps N] [--whole] [--unlinked] [--json]

Stores of so many finished points, each with a curve of N steps and two scored checkpoints, are made by hand and
mirrored into MLflow's sqlite file; a real server answers from it. Timed are the list of runs, one chart over a hundred
runs' curves (what the page shows at once), and the list of logged models. Baselines are the same store with every step
of every curve in MLflow (--whole), and without logged models, the scores with the runs alone (--unlinked).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import requests

from kdray.artifacts.curve import curve_file, write_curve
from kdray.artifacts.scores import write_scores
from kdray.plan import Plan, make_plan
from kdray.spec.load import parse_grid
from kdray.spec.points import Point
from kdray.store import Outer, Store
from kdray.track import runs
from kdray.track.address import DATABASE, SERVER
from kdray.track.mirror import Mirror
from kdray.track.models import LoggedModels
from kdray.track.runs import LOSS
from tests.conftest import TinyGrid
from tests.track.bench import CHANGES

SHOWN = 100  # runs in a chart, as the shared view asks for
ROUNDS = 5


def finished(points: int, folder: Path, steps: int) -> tuple[Plan, Store]:
    """A grid of so many trained points in a store, with scores of two checkpoints each."""
    changes = CHANGES | {"axes": {"lr": [3e-4], "batch": [2], "alpha": [0], "seed": list(range(points))}}
    plan, store = (
        make_plan(parse_grid(TinyGrid(folder).text(changes)), Outer(folder / "store")),
        Store(folder / "store"),
    )
    for planned in plan.points:
        attempt = store.begin(planned.train.key, planned.train.payload or {})
        loss = [math.exp(-step / steps) + planned.point.seed / points for step in range(1, steps + 1)]
        numbers = {"tokens": 900, "lr": 3e-4, "grad_norm": 1.0, "soft": 2.0}
        rows = [{"step": i, "examples": 2 * i, "loss": each, "ce": each, **numbers} for i, each in enumerate(loss, 1)]
        write_curve(attempt.path, rows)
        attempt.seal([curve_file(attempt.path)], workers=1, threads=1, gpu=False)
        for position, export in planned.exports.items():
            store.begin(export.key, export.payload or {}).seal(examples=int(position * steps / 4) * 2)
    for score in plan.scores:
        if isinstance(score.subject, Point):
            attempt, value = (
                store.begin(score.measure.key, score.measure.payload or {}),
                10 + score.subject.seed / points,
            )
            names = ("ce", "kl") if score.task.name == "heldout_loss" else ("rougeL", "empty")
            write_scores(
                attempt.path, {name: {"value": value, "stderr": 0.1, "n": 8} for name in names}, [{"example": 0}]
            )
            attempt.seal()
    return plan, store


@contextmanager
def served(database: Path) -> Iterator[str]:
    """The address of a server of an MLflow file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database}"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=SERVER | os.environ)
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                requests.get(f"{address}/health", timeout=1).raise_for_status()
                break
            except requests.RequestException:
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait()


def measured(points: int, steps: int) -> dict[str, float]:
    """What a grid of so many points costs, in seconds, metrics and MB."""
    with tempfile.TemporaryDirectory() as name:
        plan, store = finished(points, Path(name), steps)
        begun = time.monotonic()
        Mirror(plan, store).finish()
        found = {"mirror_s": time.monotonic() - begun}
        database = store.root / DATABASE
        with closing(sqlite3.connect(database)) as connection:
            [found["metrics"]] = connection.execute("SELECT COUNT(*) FROM metrics").fetchone()
            [experiment] = connection.execute("SELECT experiment_id FROM experiments WHERE name = 'bench'").fetchone()
        found["MB"] = database.stat().st_size / 1e6
        with served(database) as address, requests.Session() as session:
            api, search = f"{address}/ajax-api/2.0/mlflow", {"experiment_ids": [str(experiment)], "max_results": SHOWN}

            def ask(method: str, path: str, **kind: Any) -> Any:
                answer = session.request(method, f"{api}/{path}", timeout=600, **kind)
                answer.raise_for_status()
                return answer.json()

            def seconds(call: Callable[[], Any]) -> float:
                taken = []
                for _ in range(ROUNDS):
                    begun = time.monotonic()
                    call()
                    taken.append(time.monotonic() - begun)
                return statistics.median(taken)

            shown = [run["info"]["run_id"] for run in ask("POST", "runs/search", json=search)["runs"]]
            found["list_s"] = seconds(lambda: ask("POST", "runs/search", json=search))
            wanted = {"run_ids": shown, "metric_key": LOSS, "max_results": 320}  # as the page does
            several = {"experiment_ids": [str(experiment)], "max_results": 50}  # as the page does
            found["models"] = len(ask("POST", "logged-models/search", json=several).get("models", []))
            found["models_s"] = seconds(lambda: ask("POST", "logged-models/search", json=several))
            found["chart_s"] = seconds(lambda: ask("GET", "metrics/get-history-bulk-interval", params=wanted))
    return found


def ratios(ours: dict[str, float], baseline: dict[str, float]) -> dict[str, float]:
    """Of every figure that the baseline has."""
    return {name: ours[name] / value for name, value in baseline.items() if value}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("runs", nargs="*", type=int, default=[30, 300, 1000])
    arguments.add_argument("--steps", type=int, default=2142, help="of a curve: three epochs of 714")
    arguments.add_argument("--whole", action="store_true", help="every step of every curve as well")
    arguments.add_argument("--unlinked", action="store_true", help="without logged models as well")
    arguments.add_argument("--json", action="store_true")
    given = arguments.parse_args()
    table = {}
    for points in given.runs:
        table[str(points)] = row = {"thinned": measured(points, given.steps)}
        if given.whole:
            shown, runs.WHOLE = runs.WHOLE, given.steps
            row["whole"] = measured(points, given.steps)
            runs.WHOLE = shown
            row["to_whole"] = ratios(row["thinned"], row["whole"])
        if given.unlinked:
            with mock.patch.object(LoggedModels, "id_of", return_value=None):
                row["unlinked"] = measured(points, given.steps)
            row["to_unlinked"] = ratios(row["thinned"], row["unlinked"])
        if not given.json:
            for name, numbers in row.items():
                print(f"{points:5} runs, {name:8}", *(f"{key} {value:.3g}" for key, value in numbers.items()), sep="  ")
    if given.json:
        print(json.dumps(table))


if __name__ == "__main__":
    main()
