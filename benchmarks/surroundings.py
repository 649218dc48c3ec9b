"""What a run stands on, and can lose for a while: a disk with room that may be written to, a clock, an MLflow server.

Mounts need root; `can_mount` says whether there is that right. Each fault is a context: it begins, and is over at its
end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from kdray.track.address import SERVER
from tests.orchestration.nodes import free_port, listens

ROOM = "500m"  # of a disk that can be filled: twenty times a small grid's store
DAY = 86_400.0  # seconds


def can_mount() -> bool:
    """Whether this process may mount a file system."""
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True, check=False).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own at `folder`, which is empty."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """No byte more can be written on the disk of `folder`, one of `small_disk`."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:  # what others remove meanwhile is not taken: a disk that is nearly full is as bad
            file.write(bytes(1 << 16))
    try:
        yield
    finally:
        ballast.unlink()


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """No file below `folder` can be opened to be written, made, renamed or removed; those that are open stay so."""
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def shift_times(folder: Path, seconds: float, but: str) -> None:
    """Let all that lies below `folder`, but files called `but`, have been written so much later, or earlier."""
    for path in folder.rglob("*"):
        if path.name != but:
            with contextlib.suppress(FileNotFoundError):
                when = path.stat().st_mtime + seconds
                os.utime(path, (when, when))


class Server:
    """An MLflow server on this machine that keeps its runs in an sqlite file, and can be down or slow."""

    def __init__(self, database: Path) -> None:
        self.database, self._port, self._log = database, free_port(), database.with_suffix(".log")
        self.address = f"http://127.0.0.1:{self._port}"
        self._start()

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        self.close()
        try:
            yield
        finally:
            self._start()

    @contextlib.contextmanager
    def slow(self) -> Iterator[None]:
        """It takes connections, and answers nobody."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def close(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _start(self) -> None:
        places = [
            "--backend-store-uri",
            f"sqlite:///{self.database}",
            "--artifacts-destination",
            self._log.parent / "served",
        ]
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *places, "--workers", "1"],
                stdout=log,
                stderr=log,
                env=SERVER | os.environ,
            )
        while not listens(self._port):
            assert self._process.poll() is None, self._log.read_text()[-2000:]
            time.sleep(0.2)

    def _signal(self, number: signal.Signals) -> None:
        root = psutil.Process(self._process.pid)
        for process in [*root.children(recursive=True), root]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
