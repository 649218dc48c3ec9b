"""lm-eval's own tasks by name, from the text of its task files: its index parses 14,000 of them, which takes many
seconds.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from kdray.spec.errors import InputError

LINE = re.compile(r"""^["']?(task|group|tag)["']?\s*:\s*["']?([^\s"'#\[]+)""", re.MULTILINE)
FIELD = r"""^["']?{}["']?\s*:\s*["']?([^\s"'#]+)"""
SUPPORTED = ("multiple_choice", "loglikelihood", "generate_until")


def official_tasks() -> Path:
    """lm-eval's folder of task files."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "tasks"


@functools.cache
def task_files() -> dict[str, Path]:
    """The file of every task and group."""
    return {name: path for kind, name, path in _names() if kind != "tag"}


def check_benchmark(name: str, field: str) -> None:
    """Whether lm-eval has a task or group `name` that can be scored here.

    Raises:
        InputError: it has not, or only a tag of that name, a group without a score, or a task of an unsupported kind.
    """
    files = task_files()
    if name not in files:
        tagged = [path for kind, tag, path in _names() if kind == "tag" and tag == name]
        if tagged:
            members = [task for task, path in files.items() if path in tagged]
            raise InputError(
                field,
                f"'{name}' is a tag of lm-eval's, without a score of its own",
                f"name its tasks: {_some(members)}",
            )
        close = difflib.get_close_matches(name, files, n=3)
        allowed = (
            f"did you mean {' or '.join(repr(other) for other in close)}?" if close else "`lm_eval ls tasks` lists them"
        )
        raise InputError(field, f"lm-eval has no task or group '{name}'", allowed)
    text = files[name].read_text()
    if re.search(FIELD.format("group"), text, re.MULTILINE):
        if "aggregate_metric_list" not in text:
            members = re.findall(r"^\s*-\s*(?:task:\s*)?([\w.-]+)\s*$", text, re.MULTILINE)
            raise InputError(field, f"the group '{name}' has no score of its own", f"name its tasks: {_some(members)}")
    elif (kind := _output_type(files[name])) not in (None, *SUPPORTED):
        raise InputError(field, f"'{name}' asks for {kind}", f"supported are {', '.join(SUPPORTED)}")


def check_single(name: str, fields: Sequence[str]) -> None:
    """Whether `name`, whose data are to be others in these fields, is one task.

    Raises:
        InputError: it is a group, whose tasks have one data set each.
    """
    path = task_files().get(name)
    if fields and path and re.search(FIELD.format("group"), path.read_text(encoding="utf-8"), re.MULTILINE):
        raise InputError(
            fields[0], f"data for '{name}', which is a group of tasks", "name its tasks, and give each its own"
        )


def brings_examples(name: str) -> bool:
    """Whether a task's file holds its solved examples."""
    return any(re.search(r"^\s+[\"']?samples[\"']?\s*:", text, re.MULTILINE) for text in _texts(task_files()[name]))


@functools.cache
def _names() -> list[tuple[str, str, Path]]:
    """(task, group or tag; its name; the file), in the order in which lm-eval reads them: of equal names the first
    counts.
    """
    found: dict[tuple[str, str, Path], None] = {}
    seen = set()
    for path in sorted(official_tasks().glob("**/*.yaml")):
        for kind, name in LINE.findall(path.read_text(encoding="utf-8")):
            if kind == "tag" or name not in seen:
                found[kind, name, path] = None
                seen |= {name} if kind != "tag" else set()
    return list(found)


def _output_type(path: Path) -> str | None:
    """What a task asks of a model, as its file or one that it includes says."""
    found = (re.search(FIELD.format("output_type"), text, re.MULTILINE) for text in _texts(path))
    return next((match[1] for match in found if match), None)


def _texts(path: Path) -> Iterator[str]:
    """A task's file, and those that it includes."""
    text = path.read_text(encoding="utf-8")
    yield text
    include = re.search(FIELD.format("include"), text, re.MULTILINE)
    target = include and path.parent / include[1]
    if target and target.is_file():
        yield from _texts(target)


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
