"""Checks of what a grid names outside itself, before anything is built: files, columns, tokenizers, the store.

Everything here reads headers and small JSON files only. What a check cannot see yet (a hub id offline, a GGUF
file's inside) is checked again by the step that first reads it.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
from pathlib import Path
from typing import Any

from kdray.plan.steps import make_plan
from kdray.spec.components import component
from kdray.spec.errors import InputError
from kdray.spec.grid import Grid
from kdray.spec.refs import Reference, parse_reference
from kdray.store import Outer

MODEL_FIELDS = ("student", "teacher")
TABLES = (".json", ".jsonl", ".csv", ".parquet")


def check_grid(grid: Grid, outer: Outer, *, offline: bool) -> list[str]:
    """What could not be checked, as notes; writes nothing.

    Raises:
        InputError: the first thing that would make a run fail.
    """
    _check_store(outer.root)
    notes = []
    folders = {}
    for role in MODEL_FIELDS:
        if role == "teacher" and grid.teacher is None:
            continue
        ref = grid.reference(role)
        if ref.scheme == "file":
            folders[role] = _check_model(Path(ref.name), f"{role}.model")
    if folders.get("student") and folders.get("teacher"):
        _check_same_tokenizer(folders["student"], folders["teacher"])
    _check_data(grid)
    _check_tasks(grid)
    plan = make_plan(grid, outer)
    for step in plan.steps():
        if step.source is not None and step.payload is None:
            notes.append(f"{step.source} is not pinned: it is resolved at the first run and then kept")
    if not offline:
        _check_hub(grid)
    return list(dict.fromkeys(notes))


def _check_store(root: Path) -> None:
    parent = next(path for path in [root, *root.parents] if path.exists())
    if not parent.is_dir():
        raise InputError("runtime.store", f"{parent} is a file", "give a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError("runtime.store", f"{parent} is read-only", "give a folder that you may write to")


def _check_model(path: Path, field: str) -> Path | None:
    """The folder of a local model; None for a GGUF file."""
    if not path.exists():
        raise InputError(field, f"no file or folder {path}", f"paths are read from {Path.cwd()}")
    if path.is_file():
        if path.suffix != ".gguf":
            raise InputError(field, f"{path} is a file", "give a Hugging Face folder or a .gguf file")
        return None
    if not (path / "config.json").is_file():
        raise InputError(field, f"no config.json in {path}", "give a Hugging Face model folder")
    if not any(path.glob("*.safetensors")):
        raise InputError(field, f"no weights in {path}", "it needs *.safetensors (pickled weights are not read)")
    return path


def _check_same_tokenizer(student: Path, teacher: Path) -> None:
    vocabularies = [_vocabulary(folder) for folder in (student, teacher)]
    if None in vocabularies:
        return
    ours, theirs = vocabularies
    if ours != theirs:
        different = "different token ids" if len(ours or {}) == len(theirs or {}) else f"{len(theirs or {})} tokens against {len(ours or {})}"
        raise InputError("teacher.model", f"its tokenizer is not the student's ({different})", "take a teacher of the student's family")


def _vocabulary(folder: Path) -> dict[str, int] | None:
    """All tokens by text, of a tokenizer in the `tokenizers` format."""
    try:
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    if isinstance(vocabulary, list):  # unigram: [token, score] in the order of ids
        vocabulary = {token: i for i, (token, _) in enumerate(vocabulary)}
    return vocabulary | {token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}


def _check_data(grid: Grid) -> None:
    ref = grid.reference("data")
    if ref.scheme == "file":
        columns = _columns(ref, "data.source")
        if columns is not None:
            _require(_recipe_columns(grid), columns, "data.source", ref)


def _recipe_columns(grid: Grid) -> list[str]:
    """The columns that the recipe will read: fixed ones, and those that its parameters name."""
    recipe = grid.data.recipe
    constants = component("recipe", recipe.name, "data.recipe").constants
    named = [recipe.params[key] for key in constants.get("COLUMN_PARAMETERS", ())]
    return [*constants.get("COLUMNS", ()), *(name for name in named if name)]


def _check_tasks(grid: Grid) -> None:
    for i, use in enumerate(grid.score.tasks):
        source = use.params.get("source")
        if source is None:
            continue
        field = f"score.tasks.{i}.source"
        ref = parse_reference(source, field)
        if ref.scheme == "file":
            columns = _columns(ref, field)
            wanted = component("task", use.name, "score.tasks").constants.get("COLUMNS", ())
            if columns is not None:
                _require(list(wanted), columns, field, ref)


def _require(wanted: list[str], columns: list[str], field: str, ref: Reference) -> None:
    for name in wanted:
        if name not in columns:
            raise InputError(field, f"no column '{name}' in {ref}", f"it has {', '.join(columns)}")


def _columns(ref: Reference, field: str) -> list[str] | None:
    """The columns of a local json, jsonl or csv file, from its first row; None where that is not cheap.

    Raises:
        InputError: no such file, no rows, or not what its name says.
    """
    path = Path(ref.name)
    if not path.exists():
        raise InputError(field, f"no file {path}", f"paths are read from {Path.cwd()}")
    if path.suffix not in (*TABLES, ".zip"):
        raise InputError(field, f"'{path.name}' has no known format", f"known: {', '.join(TABLES)}, or one of them in a .zip")
    try:
        row = _first_row(path)
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise InputError(field, f"{path} is damaged ({error})", f"give a {path.suffix} file") from None
    if row is not None and not row:
        raise InputError(field, f"{path} has no rows", "give a data set with rows")
    return list(row) if row else None


def _first_row(path: Path) -> dict[str, Any] | None:
    """The first row; {} where there is none; None for formats that this does not read."""
    if path.stat().st_size == 0:
        return {}
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return next(csv.DictReader(file), {})
    if path.suffix not in (".json", ".jsonl"):
        return None
    with path.open(encoding="utf-8") as file:
        first = next((line for line in file if line.strip()), "")
        if not first:
            return {}
        if first.lstrip().startswith("["):
            rows = json.loads(first + "".join(itertools.islice(file, None)))
            return rows[0] if rows else {}
        row = json.loads(first)
        if not isinstance(row, dict):
            raise json.JSONDecodeError("the first row is no object", first, 0)
        return row


def _check_hub(grid: Grid) -> None:
    """Whether the hub knows the grid's ids; only looks where it is asked to."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    for field, ref in [("student.model", grid.reference("student")), *_teacher(grid), ("data.source", grid.reference("data"))]:
        if ref.scheme != "hf":
            continue
        try:
            kind = "dataset" if field == "data.source" else "model"
            HfApi().repo_info(ref.name, revision=ref.version, repo_type=kind)
        except (HfHubHTTPError, OSError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(field, f"the hub does not give {ref} ({reason})", "check the id and HF_TOKEN, or use --offline") from None


def _teacher(grid: Grid) -> list[tuple[str, Reference]]:
    return [("teacher.model", grid.reference("teacher"))] if grid.teacher else []
