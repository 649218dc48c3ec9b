"""A small grid, the process that runs it, and what its store and MLflow then hold."""

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from kdray.artifacts.scores import ROWS, SCORES
from kdray.store import io
from kdray.store.locks import DONE
from kdray.track.runs import IN_GRID_TAG, POINT_TAG
from tests.tiny import PLACES, write_grid

EVERY = 2  # steps between the grid's resume checkpoints
SECONDS = 600.0  # that one start may take


class Driver:
    """`kdray run` on a grid in a session of its own, so that nothing of it can be missed."""

    def __init__(self, grid: Path, environment: dict[str, str] | None = None) -> None:
        self.stuck, self.since = False, time.time()
        self.log = grid.parent.with_name(f"{grid.parent.name}-driver-{len([*log_files(grid.parent)])}.log")
        command = [sys.executable, "-m", "kdray", "run", str(grid)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=environment
            )

    def said(self) -> str:
        return self.log.read_text()

    def family(self) -> list[psutil.Process]:
        """The driver's processes, but itself."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def end(self) -> int | None:
        """Its exit code, once it has ended; None, also when asked again, if it did not in time and was killed."""
        try:
            self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.stuck = True
            self.kill_all()
        return None if self.stuck else self.process.returncode

    def kill_all(self) -> None:
        for process in [*self.family(), psutil.Process(self.process.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()


def log_files(folder: Path) -> Iterator[Path]:
    """What the drivers of a run's folder have said; not in it, for its disk may be full."""
    return folder.parent.glob(f"{folder.name}-driver-*.log")


def write(folder: Path, mlflow: str | None = None) -> Path:
    """The grid, in a folder of its own, with its view on a server if there is an address."""
    news = [{"document": f"{place} is far . " * 3, "summary": f"{place} is far"} for place in PLACES]
    (folder / "xsum.jsonl").write_text("".join(json.dumps(row) + "\n" for row in news))
    return write_grid(
        folder,
        train="{steps: 12, keep: [6, 12]}",
        score=(
            "{tasks: [heldout_loss, {name: heldout_answers, limit: 6, max_new_tokens: 8},"
            f" {{name: xsum, source: 'file:{folder}/xsum.jsonl', max_new_tokens: 8}}], references: [student],"
            " batch: 3}"
        ),
        lens=(
            "{own: {task: {name: train_answers, limit: 20, max_new_tokens: 8}, threshold: 0.0,"
            f" metric: {{name: support_standin, model: 'file:{folder}/teacher'}}}}, window: 3}}"
        ),
        runtime=f"{{store: '{folder}/store', checkpoint_every: {EVERY}, mlflow: {mlflow or 'null'}}}",
    )


def finished(store: Path) -> dict[Path, int]:
    """When every finished artifact was sealed."""
    return {path.parent: path.stat().st_mtime_ns for path in store.glob(f"*/*/{DONE}")}


def content(store: Path) -> dict[str, Any]:
    """Of every artifact the checksums of the files that must be the same in every run; of measurements the scores'."""
    found = {}
    for path in store.glob(f"*/*/{DONE}"):
        kind, name = path.parent.parent.name, path.parent.name
        files = {name: one["sha256"] for name, one in (io.read_json(path) or {}).get("files", {}).items()}
        if kind == "measure":
            files = {name: files[name] for name in (SCORES, ROWS) if name in files}
        elif kind in ("train", "generate"):  # times stand in the curve, and in the answers' metadata
            files = {}
        found[f"{kind}/{name}"] = files
    return found


def tracked(database: Path) -> dict[str, Any]:
    """What MLflow has, by the identities of runs: how often, their status, and every metric at every step."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        runs = connection.execute(
            "SELECT value, run_uuid, status FROM runs JOIN tags USING (run_uuid)"
            " WHERE key = ? AND lifecycle_stage = 'active'",
            (POINT_TAG,),
        ).fetchall()
        found: dict[str, Any] = {**Counter(identity for identity, *_ in runs)}
        for identity, run, status in runs:
            found[f"{identity} status"] = status
            query = "SELECT key, step, value FROM metrics WHERE run_uuid = ?"
            found |= {f"{identity} {key} {step}": value for key, step, value in connection.execute(query, (run,))}
            query = "SELECT value FROM tags WHERE run_uuid = ? AND key = ?"
            found[f"{identity} in grid"] = connection.execute(query, (run, IN_GRID_TAG)).fetchone()
        return found


def doubled_metrics(database: Path) -> int:
    """Metrics that MLflow has twice."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        query = "SELECT COUNT(*) FROM (SELECT 1 FROM metrics GROUP BY run_uuid, key, step HAVING COUNT(*) > 1)"
        return connection.execute(query).fetchone()[0]


def unfinished(store: Path, kind: str = "*") -> list[Path]:
    """The folders of artifacts, or of those of a kind, that were begun and are not finished."""
    return [path for path in store.glob(f"{kind}/*-*") if path.is_dir() and not (path / DONE).exists()]


def unsealed(store: Path) -> list[Path]:
    """The files of unfinished artifacts, the newest last."""
    files = [path for folder in unfinished(store) for path in folder.rglob("*") if path.is_file()]
    return sorted(files, key=changed)


def changed(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return 0


def flip(path: Path, dice: random.Random) -> None:
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


def cut(path: Path, dice: random.Random) -> None:
    """Leave a part of a file, less than the last byte of JSON in it."""
    os.truncate(path, dice.randint(0, path.stat().st_size - 2))


def title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""
