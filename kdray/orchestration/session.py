"""Connecting to Ray for the length of a run.

With RAY_ADDRESS set, that cluster is used. Otherwise a local Ray is started, and never another one joined that
happens to run on the machine.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import kdray
from kdray.check.machine import Need
from kdray.orchestration.resources import Resources, usable
from kdray.spec.errors import InputError
from kdray.spec.sections.running import Runtime
from kdray.store import Store

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a report waits for the next poll: 2 s by default
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "86400",  # where a node is lost, its points wait for others to end
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Else a thread of Ray Data's that polls once more when an interrupted run has left Ray starts another one, and the
    # command ends 20 to 60 s later, with a warning.
    "RAY_ENABLE_AUTO_CONNECT": "0",
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
LOCAL = {
    "RAY_memory_monitor_refresh_ms": "0",  # another process's memory must not get our workers killed
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process a point, of use where nodes may be taken away
}
CONNECT_SECONDS = 10
LISTENS = "kdray-pipeline"  # the name of threads that ask Ray for what a pipeline answers
PATIENCE = 10.0  # seconds in which they see that the session ends
OBJECT_STORE_BYTES = 200 << 20  # rows travel as references to files, not as objects


leaving = threading.Event()  # whether the session ends, and with it all pipelines


class NotStarted(Exception):
    """Ray could not be started on this machine. `str()` is one line."""


@contextlib.contextmanager
def ray_session(runtime: Runtime, needs: Sequence[Need] = (), *, insecure: bool = False) -> Iterator[Resources]:
    """A connection to Ray for the length of a run; `insecure` allows a cluster of several hosts without a token.

    Raises:
        InputError: the cluster cannot be reached, is too small for one point, lets anybody in, or has nodes that do not
            see the store, or that work and lack one of `needs`.
        NotStarted: there is no address, and a Ray of our own does not come up.
    """
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if runtime.device == "cpu" else {}
    with _environment(hidden), _connection(runtime, needs, QUIET | hidden, insecure=insecure) as resources:
        yield resources


@contextlib.contextmanager
def _connection(
    runtime: Runtime, needs: Sequence[Need], settings: dict[str, str], *, insecure: bool
) -> Iterator[Resources]:
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    import ray
    from ray.data import DataContext
    from ray.exceptions import RayError

    from kdray.orchestration.cluster import check_cluster, smallest_gpu

    # Ray ends its driver by SIGTERM with a stack trace and an abort: the command's own way stays.
    ended_by = signal.getsignal(signal.SIGTERM)
    address = os.environ.get("RAY_ADDRESS")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        _require_reachable(address)
        package = str(Path(kdray.__file__).parent)
        try:
            with _silent():
                ray.init(address=address, runtime_env={"py_modules": [package], "env_vars": settings}, **quiet)
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            reason = str(error).strip().splitlines()[0]
            allowed = "start it, give its token (RAY_AUTH_MODE=token), or unset RAY_ADDRESS"
            raise InputError("RAY_ADDRESS", f"no cluster at {address} ({reason})", allowed) from None
    else:
        os.environ.update({key: os.environ.get(key, value) for key, value in LOCAL.items()})
        try:
            with _silent():
                # The dashboard's State API is what frees the placement group of a stopped trial.
                ray.init(
                    address="local",
                    include_dashboard=True,
                    dashboard_host="127.0.0.1",
                    object_store_memory=OBJECT_STORE_BYTES,
                    **quiet,
                )
        except Exception as error:  # all that Ray raises where its processes die or are slow, for which it waits 30 s
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise NotStarted(f"Ray has not started here ({reason}); if the machine is busy, try again later") from error
        token = Path("~/.ray/auth_token").expanduser()
        if token.is_file():
            token.chmod(0o600)
    signal.signal(signal.SIGTERM, ended_by)
    try:
        for logger in ("ray", "ray.data", "ray.tune", "ray.train"):  # failures are told once, by the stage
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.execution_options.preserve_order = True
        nodes = [node for node in ray.nodes() if node["Alive"]]
        resources = usable(runtime, [node["Resources"] for node in nodes])
        if address:
            working = [node["NodeID"] for node, units in zip(nodes, resources.units, strict=True) if units]
            check_cluster(Store(runtime.store).root, dict.fromkeys(working, needs), insecure=insecure)
        with_gpus = [node["NodeID"] for node, used in zip(nodes, resources.nodes, strict=True) if used.gpus]
        yield replace(resources, gpu_memory=smallest_gpu(with_gpus) if with_gpus else None)
    finally:
        end()


def end() -> None:
    """Leave Ray once nobody asks it for anything any more: that would take this process down."""
    import ray

    leaving.set()
    for thread in threading.enumerate():
        if thread.name == LISTENS:
            thread.join(PATIENCE)
    ray.shutdown()
    leaving.clear()


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """These in the environment, and then again what was there before."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ |= settings
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


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
    """Refuse an address at which nothing listens: Ray itself would go on trying for minutes.

    Raises:
        InputError: that, or it is a dashboard's address.
    """
    if address.startswith(("http://", "https://")):
        raise InputError("RAY_ADDRESS", f"{address} is a dashboard", "give HOST:6379, or use `kdray submit`")
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return  # a word such as "auto": Ray resolves it
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise InputError(
            "RAY_ADDRESS", f"no cluster at {address} ({error})", "start it, or unset RAY_ADDRESS"
        ) from None
