"""Run a grid as a job of a Ray cluster: `ray job submit`, made so that it can be repeated.

This package and the grid file travel to the head of the cluster, where `kdray run` does the work from a folder that
all nodes share. A grid is one job at a time: while it runs, a second call only shows its output. Jobs of a grid are
numbered, so that of two calls at once one finds its number taken, and follows the other.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import kdray
from kdray.spec.errors import InputError

ADDRESS = "RAY_API_SERVER_ADDRESS"  # Ray's own name for it
GRID, TEXT = "kdray.grid", "kdray.sha256"  # of a job's metadata
TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
# What the head's Python runs: kdray, or one line that says which packages it has not.
START = """
import importlib.util, os, sys
needed = "typer pydantic rich yaml ray torch transformers peft deepspeed datasets lm_eval sklearn mlflow"
missing = [name for name in needed.split() if importlib.util.find_spec(name) is None]
if missing:
    where = f"{sys.executable} on {os.uname().nodename}"
    help = "`make install` in the folder of the job, or docs/cluster.md's image on all nodes"
    sys.exit(f"{where} has no {', '.join(missing)}: {help}")
if __name__ == "__main__":
    from kdray.cli import main
    main()
"""
Say = Callable[[str], None]


def submit(path: Path, name: str, folder: str, options: Sequence[str], say: Say) -> bool:
    """Run the grid in the file `path` from `folder` on the cluster, and pass its output to `say` until it ends.

    Returns whether it ended well.

    Raises:
        InputError: there is no cluster at the address, or it refuses us.
    """
    client = connect()
    text = path.read_bytes()
    sha256 = hashlib.sha256(text).hexdigest()
    jobs = [job for job in client.list_jobs() if (job.metadata or {}).get(GRID) == name]
    running = next((job for job in jobs if not job.status.is_terminal()), None)
    if running is None:
        last = max((int(job.submission_id.rpartition("-")[2]) for job in jobs), default=0)
        id = f"kdray-{name}-{last + 1}"
        if _start(client, id, text, folder, options, {GRID: name, TEXT: sha256}):
            say(f"{id}: submitted\n")
        else:
            say(f"{id}: submitted by somebody else at the same moment\n")
    else:
        id = running.submission_id
        same = running.metadata[TEXT] == sha256
        say(
            f"{id}: running already\n"
            if same
            else f"{id}: running, from an earlier text of the grid file: stop it to use this one\n"
        )
    say(f"{id}: Ctrl-C here lets it run on; `ray job stop {id}` stops it\n")
    import aiohttp

    try:
        asyncio.run(_follow(client, id, say))
        status = client.get_job_status(id)
    except (RuntimeError, OSError, aiohttp.ClientError) as error:  # a tunnel to the head that breaks after hours
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        say(f"{id}: the connection is lost ({reason}), and the job runs on: the same command follows it again\n")
        return False
    say(f"{id}: {status.value.lower()}\n")
    return status.value == "SUCCEEDED"


def connect() -> Any:
    from ray.job_submission import JobSubmissionClient

    address = os.environ.get(ADDRESS)
    if not address:
        raise InputError(ADDRESS, "not set", "the dashboard of the cluster's head, http://HOST:8265")
    if address.startswith("ray://"):  # it would be tried for half a minute
        raise InputError(
            ADDRESS, f"{address} is a Ray client's address", "the dashboard of the cluster's head, http://HOST:8265"
        )
    for logger in TALKATIVE:
        logging.getLogger(logger).setLevel(logging.WARNING)
    try:
        client = JobSubmissionClient(address)
        client.list_jobs()
    except Exception as error:  # noqa: BLE001 - requests', Ray's and plain ones, all of them said in one line
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            ADDRESS,
            f"no cluster at {address} ({reason})",
            "its dashboard, http://HOST:8265; with a token, RAY_AUTH_MODE=token",
        ) from None
    return client


def _start(client: Any, id: str, text: bytes, folder: str, options: Sequence[str], metadata: dict[str, str]) -> bool:
    """Start the job `id`; False if there is one of that name."""
    # The environment in the folder is used if there is one, else the one that the head has.
    run = f'exec python -P "$OLDPWD/start.py" run {shlex.join([*options, "--"])} "$OLDPWD/grid.yaml"'
    with tempfile.TemporaryDirectory() as package:
        shutil.copytree(
            Path(kdray.__file__).parent, Path(package) / "kdray", ignore=shutil.ignore_patterns("__pycache__")
        )
        (Path(package) / "grid.yaml").write_bytes(text)
        (Path(package) / "start.py").write_text(START)
        try:
            client.submit_job(
                entrypoint=f'cd {shlex.quote(folder)} && PATH="$PWD/.venv/bin:$PATH" PYTHONPATH="$OLDPWD" {run}',
                submission_id=id,
                runtime_env={"working_dir": package},
                metadata=metadata,
            )
        except RuntimeError as error:
            if "already exists" in str(error) or "already been used" in str(error):
                return False
            raise
    return True


async def _follow(client: Any, id: str, say: Say) -> None:
    async for lines in client.tail_job_logs(id):
        say(lines)
