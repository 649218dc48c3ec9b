"""A point's metrics over its steps: `metrics.jsonl`, an object a step, to which the first worker appends while it
trains.

Beside it lies `times.jsonl`, how long the steps of this attempt took, on what if the student samples, and, on a GPU,
how much of its memory: another each time, so that MLflow and the report do not read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from kdray.artifacts.files import is_number, reading
from kdray.store import Artifact
from kdray.store.done import ATTEMPT

CURVE, TIMES = "metrics.jsonl", "times.jsonl"
NEEDED = ("step", "examples", "tokens", "loss")  # of every step; a step on sampled responses has no `ce`
Curve = list[dict[str, float]]


def write_curve(folder: Path, entries: Iterable[Mapping[str, float]]) -> None:
    """Begin a curve with the steps that are done."""
    (folder / CURVE).write_text("".join(map(_line, entries)))


def append_step(folder: Path, entry: Mapping[str, float]) -> None:
    with (folder / CURVE).open("a") as file:
        file.write(_line(entry))


def append_time(
    folder: Path,
    step: int,
    seconds: float,
    gpu_gib: float | None = None,
    spent: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Keep how long a step took, with all that came before the next one, the peak of memory so far on the first
    worker's GPU, in GiB, where it has one, and the seconds by what they were `spent` on, as far as that is told apart.
    """
    peak = {} if gpu_gib is None else {"gpu_gib": round(gpu_gib, 3)}
    parts = {"spent": {what: round(of, 4) for what, of in spent.items()}} if spent else {}
    with (folder / TIMES).open("a") as file:
        file.write(json.dumps({"step": step, "seconds": round(seconds, 3), **peak, **parts}) + "\n")


def read_times(folder: Path) -> dict[int, float]:
    """Seconds by step, as far as they were kept."""
    path = folder / TIMES
    if not path.is_file():
        return {}
    with reading(path):
        entries = [json.loads(line) for line in _whole_lines(path.read_bytes())]
        return {entry["step"]: entry["seconds"] for entry in entries}


def read_shares(folder: Path) -> dict[str, float]:
    """What share of the attempt's time was spent on what, from 0 to 1; `rest` is all else. Empty where that is not told
    apart.
    """
    path = folder / TIMES
    if not path.is_file():
        return {}
    with reading(path):
        entries = [json.loads(line) for line in _whole_lines(path.read_bytes())]
        spent = [entry["spent"] for entry in entries if "spent" in entry]
        seconds = sum(entry["seconds"] for entry in entries)
    if not spent or not seconds:
        return {}
    shares = {what: sum(parts[what] for parts in spent) / seconds for what in spent[0]}
    return shares | {"rest": max(0.0, 1 - sum(shares.values()))}


def read_peak(folder: Path) -> float | None:
    """The peak of GPU memory by its newest step, in GiB; None where none was kept."""
    path = folder / TIMES
    if not path.is_file():
        return None
    with reading(path):
        lines = _whole_lines(path.read_bytes())
        return json.loads(lines[-1]).get("gpu_gib") if lines else None


def read_attempt(folder: Path) -> Curve:
    """The curve that one attempt has written so far; nothing where it has not begun.

    Raises:
        InputError: a whole line of it is damaged.
    """
    path = folder / CURVE
    return _parsed(path, path.read_bytes()) if path.is_file() else []


def newest_steps(folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """The last step of an attempt's curve, and the last with a held-out loss; empty where there is none.

    Raises:
        InputError: one of them is damaged.
    """
    path = folder / CURVE
    content = path.read_bytes() if path.is_file() else b""
    content = content[: content.rfind(b"\n") + 1]
    with reading(path):
        return _line_at(content, len(content) - 2), _line_at(content, content.rfind(b'"heldout_ce"'))


def count_steps(folder: Path) -> int:
    """The steps of a curve that may still be written to, or may not be there yet."""
    path = folder / CURVE
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def read_curve(artifact: Artifact) -> Curve:
    """The whole curve of a finished point.

    Raises:
        InputError: it is missing or damaged.
    """
    path = artifact.path / CURVE
    with reading(path):
        return _parsed(path, path.read_bytes())


def read_growing_curve(folder: Path) -> Curve:
    """The curve of an unfinished point in its artifact's `folder`: of the attempt that got furthest; nothing where none
    has begun.

    Raises:
        InputError: a whole line of it is damaged.
        FileNotFoundError: an attempt was removed meanwhile.
    """
    curves = [(path, path.read_bytes()) for path in folder.glob(f"{ATTEMPT}*/{CURVE}")]
    return max((_parsed(path, content) for path, content in curves), key=len, default=[])


def curve_file(folder: Path) -> Path:
    """The file that is a part of the artifact."""
    return folder / CURVE


def log_files(folder: Path) -> list[Path]:
    """The files that are kept of training: the curve, and what its steps took."""
    return [folder / CURVE, *(path for path in [folder / TIMES] if path.is_file())]


def _line(entry: Mapping[str, float]) -> str:
    return json.dumps(dict(entry)) + "\n"


def _parsed(path: Path, content: bytes) -> Curve:
    """The whole lines of a file: behind them may be one that is still being written."""
    with reading(path):
        return [_checked(line, number) for number, line in enumerate(_whole_lines(content), start=1)]


def _whole_lines(content: bytes) -> list[bytes]:
    return content[: content.rfind(b"\n") + 1].splitlines()


def _line_at(content: bytes, at: int) -> dict[str, float]:
    """The step in the line around a place; empty where that lies before the first."""
    if at < 0:
        return {}
    begin, end = content.rfind(b"\n", 0, at) + 1, content.find(b"\n", at)
    return _checked(content[begin:end], content.count(b"\n", 0, begin) + 1)


def _checked(line: bytes, number: int) -> dict[str, float]:
    entry = json.loads(line)
    if not isinstance(entry, dict) or not all(map(is_number, entry.values())):
        raise ValueError(f"line {number} holds no numbers by name")
    if missing := [name for name in NEEDED if name not in entry]:
        raise ValueError(f"line {number} has no '{missing[0]}'")
    return entry
