"""Connecting to Ray, and what a point may use of it.

With RAY_ADDRESS set, that cluster is used. Otherwise a local Ray is started, and never another one joined that
happens to run on the machine.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import kdray
from kdray.spec.errors import InputError
from kdray.spec.grid import Runtime

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a report waits for the next poll: 2 s by default
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process per run, of use on spot nodes only
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    # Both are said of healthy runs; a failed step is told by its stage.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "PYTHON worker processes have been started|A worker died or was killed",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the run, not only the stage that it meets
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
}
# Another process's memory must not get our workers killed on a shared machine.
LOCAL = {"RAY_memory_monitor_refresh_ms": "0"}
CONNECT_SECONDS = 10
OBJECT_STORE_BYTES = 200 << 20  # rows travel as references to files, not as objects


@dataclass(frozen=True)
class Resources:
    """What the cluster has, and what one worker of a training job gets."""

    cpus: int
    gpus: int
    workers: int  # of one point
    largest_node: int  # cores

    @property
    def concurrent_points(self) -> int:
        return (self.gpus or self.cpus) // self.workers

    @property
    def actors(self) -> int:
        """Processes that score or soften side by side: one a GPU, else one a core."""
        return self.gpus or self.cpus

    @property
    def teacher_threads(self) -> int:
        """Cores for each worker of the teacher, which trains alone but must fit on one node."""
        return max(1, min(16, self.cpus // self.workers, self.largest_node // min(self.workers, 8)))


@contextlib.contextmanager
def ray_session(runtime: Runtime) -> Iterator[Resources]:
    """A connection to Ray for the length of a run.

    Raises:
        InputError: the cluster cannot be reached, or is too small for one point.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    import ray
    from ray.data import DataContext

    if runtime.device == "cpu":
        QUIET["CUDA_VISIBLE_DEVICES"] = os.environ["CUDA_VISIBLE_DEVICES"] = ""
    address = os.environ.get("RAY_ADDRESS")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        _require_reachable(address)
        package = str(Path(kdray.__file__).parent)
        try:
            with _silent():
                ray.init(address=address, runtime_env={"py_modules": [package], "env_vars": QUIET}, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError("RAY_ADDRESS", f"no cluster at {address} ({reason})", "start it, or unset RAY_ADDRESS") from None
    else:
        os.environ.update({key: os.environ.get(key, value) for key, value in LOCAL.items()})
        with _silent():
            # The dashboard's State API is what frees the placement group of a stopped trial.
            ray.init(
                address="local",
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                object_store_memory=OBJECT_STORE_BYTES,
                **quiet,
            )
        token = Path("~/.ray/auth_token").expanduser()
        if token.is_file():
            token.chmod(0o600)
    try:
        for logger in ("ray", "ray.data", "ray.tune", "ray.train"):  # failures are told once, by the stage
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.execution_options.preserve_order = True
        total = ray.cluster_resources()
        workers = 1 if runtime.workers == "auto" else runtime.workers
        largest = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])
        gpus = 0 if runtime.device == "cpu" else int(total.get("GPU", 0))
        if runtime.device == "gpu" and not gpus:
            raise InputError("runtime.device", "gpu, but this Ray has none", "use auto or cpu, or a cluster with GPUs")
        resources = Resources(int(total.get("CPU", 0)), gpus, workers, largest)
        if resources.concurrent_points == 0:
            unit, have = ("GPUs", resources.gpus) if resources.gpus else ("CPUs", resources.cpus)
            raise InputError("runtime.workers", f"{workers} workers need {workers} {unit}", f"this Ray has {have}")
        yield resources
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Nothing on stderr, not even from Ray's C++ side, which announces there that it was told to log less."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _require_reachable(address: str) -> None:
    """Refuse an address at which nothing listens: Ray itself would go on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return  # a word such as "auto": Ray resolves it
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise InputError("RAY_ADDRESS", f"no cluster at {address} ({error})", "start it, or unset RAY_ADDRESS") from None
