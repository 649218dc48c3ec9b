"""What a training attempt notes for the driver: how it ran, `start.json`, and why it ended early, `ended.json`, or at
which step it was stopped, `stopped.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdray.artifacts.files import damaged, is_number, read_json, read_object
from kdray.store import io

START, ENDED, STOPPED = "start.json", "ended.json", "stopped.json"


def note_start(folder: Path, facts: Mapping[str, Any]) -> None:
    io.put_json(folder / START, facts)


def read_start(folder: Path) -> dict[str, Any]:
    """How the attempt ran, as its first worker noted it; nothing where none has begun."""
    return read_object(folder / START) if (folder / START).is_file() else {}


def note_end(folder: Path, reason: str) -> None:
    """Keep why training cannot go on, and would not if it were tried again."""
    io.put_json(folder / ENDED, reason)


def ended_early(folder: Path) -> str | None:
    """Why training could not go on; None where it could."""
    if not (folder / ENDED).is_file():
        return None
    reason = read_json(folder / ENDED)
    if not isinstance(reason, str):
        raise damaged(folder / ENDED, "no text")
    return reason


def note_stop(folder: Path, step: int) -> None:
    """Keep that somebody asked for the point to stop, which it did after `step` steps."""
    io.put_json(folder / STOPPED, step)


def stopped_at(folder: Path) -> int | None:
    """The steps after which the attempt was stopped; None where it was not."""
    if not (folder / STOPPED).is_file():
        return None
    step = read_json(folder / STOPPED)
    if not is_number(step):
        raise damaged(folder / STOPPED, "no number")
    return int(step)
