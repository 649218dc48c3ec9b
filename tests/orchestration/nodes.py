"""Ray nodes as `ray start` makes them, on this machine, each of which can be lost."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import ray

from tests.conftest import ROOT

RAY = Path(sys.executable).with_name("ray")
SECONDS = 300  # for anything to happen on a busy machine


class Nodes:
    """A head and further nodes, with ports of their own: other Rays on this machine are neither joined nor stopped."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.temp = Path(tempfile.mkdtemp(prefix="kr-", dir="/tmp"))  # Ray's sockets want a short path
        unset = {
            name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
        }
        self.environment = unset | {"PYTHONPATH": str(ROOT), "RAY_memory_monitor_refresh_ms": "0"} | environment
        self.processes: list[subprocess.Popen[bytes]] = []
        self.ip = ray.util.get_node_ip_address()  # a driver asks for this one even where it is told 127.0.0.1
        self.address, self.dashboard = "", ""

    def head(self, *arguments: str) -> None:
        """Start the head, with its dashboard."""
        port, dashboard = free_port(), free_port()
        self.address, self.dashboard = f"{self.ip}:{port}", f"http://127.0.0.1:{dashboard}"
        ports = [f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}"]
        self._start("--head", *ports, f"--temp-dir={self.temp}", *arguments)
        wait_until(lambda: listens(dashboard), self.processes[0])

    def add(self, *arguments: str, ip: str = "", wrapper: tuple[str, ...] = ()) -> int:
        """Start another node that joins the head; returns its number."""
        self._start(f"--address={self.address}", *arguments, ip=ip, wrapper=wrapper)
        return len(self.processes) - 1

    def family(self, *numbers: int) -> list[psutil.Process]:
        """All that runs on these nodes, or on all of them."""
        found: list[psutil.Process] = []
        for node in [self.processes[number] for number in numbers] or self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
        return found

    def lose(self, number: int) -> None:
        """Kill all that runs on a node, at once, as if its machine had gone."""
        for process in self.family(number):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self.processes[number].wait()

    def close(self) -> None:
        for number in reversed(range(len(self.processes))):
            self.lose(number)
        shutil.rmtree(self.temp, ignore_errors=True)

    def _start(self, *arguments: str, ip: str = "", wrapper: tuple[str, ...] = ()) -> None:
        own = [
            f"--dashboard-agent-listen-port={free_port()}",
            f"--metrics-export-port={free_port()}",
            f"--node-ip-address={ip or self.ip}",
        ]
        command = [*wrapper, str(RAY), "start", *arguments, *own, "--object-store-memory=100000000", "--block"]
        log = self.temp / f"node-{len(self.processes)}.log"
        with log.open("wb") as file:
            self.processes.append(subprocess.Popen(command, stdout=file, stderr=file, env=self.environment))
        wait_until(lambda: "Ray runtime started" in log.read_text(), self.processes[-1], said=log.read_text)


@contextlib.contextmanager
def nodes(**environment: str) -> Iterator[Nodes]:
    """A cluster to start nodes in; `environment` is that of all of them."""
    cluster = Nodes(environment)
    try:
        yield cluster
    finally:
        cluster.close()


def free_port() -> int:
    """A port that nobody listens at, outside the range from which the kernel gives ports to others meanwhile."""
    while listens(port := random.randrange(20_000, 32_000)):
        pass
    return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition, process, seconds=SECONDS, said=str):
    """What `condition` returns once that is true, while `process` lives, of which `said` tells more."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert process.poll() is None, f"ended with {process.returncode}: {said()}"
        assert time.monotonic() < deadline, said()
        time.sleep(0.05)
    return found
