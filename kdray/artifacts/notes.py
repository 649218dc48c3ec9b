"""What a training attempt notes for the driver: how it ran, `start.json`, and why it ended early, `ended.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdray.artifacts.files import damaged, read_json, read_object
from kdray.store import io

START, ENDED = "start.json", "ended.json"


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
