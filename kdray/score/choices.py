"""Multiple-choice tasks as lm-eval's task files, its official ones wherever there are.

A task is laid down as a small YAML file, which includes the official one and points it at the data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import yaml

from kdray.check.benchmarks import official_tasks, task_files
from kdray.data.sources import open_source
from kdray.data.tables import arrow_file, write_typed
from kdray.spec import declare
from kdray.spec.columns import task_columns
from kdray.spec.components import declared, module_of
from kdray.spec.errors import InputError
from kdray.spec.folders import read_config, tokenizer_digest
from kdray.spec.refs import Reference
from kdray.store import Outer

TASK = "task.yaml"  # beside a task's data, while it is measured


def own_name(name: str) -> str:
    """lm-eval's name for a task that is laid down here."""
    base, _, official = name.partition(":")
    return f"kdray_{official or base}"


def lay_down_task(
    name: str,
    params: dict[str, Any],
    ref: Reference,
    outer: Outer,
    folder: Path,
    identity: Mapping[str, Any] | None = None,
) -> str:
    """Write `folder/task.yaml` (and its data, where they are ours) for the choices task `name`; returns lm-eval's name
    for it.

    `name` is a component's, or `lm_eval:NAME` for a task of lm-eval's with data of one's own, whose content was
    `identity` when the run began. Local rows are read by us: lm-eval takes a path for a pattern, and what once was
    there for what is.
    """
    official_name = name.partition(":")[2]
    module, declares = module_of(declare.Task, name), declared(declare.Task, name)
    assert isinstance(declares, declare.ChoiceTask)
    folder.mkdir(parents=True, exist_ok=True)
    official = (
        task_files()[official_name]
        if official_name
        else official_tasks() / declares.config
        if declares.config
        else None
    )
    task: dict[str, Any] = {"include": str(official)} if official else module.config()
    rows = ""
    if ref.scheme == "hf":
        task |= {
            "dataset_path": ref.name,
            "dataset_name": ref.config,
            "dataset_kwargs": {"revision": outer.pinned(ref).version},
        }
        task |= {"test_split": ref.split or "test", "validation_split": None}
    else:
        field = f"score.tasks.{name}.source"
        if (columns := task_columns(name, params)) is not None:
            file = arrow_file(ref, outer, columns, identity, field)
        else:
            file = folder / "documents.arrow"
            write_typed(file, _own_documents(module, params, outer.local_file(ref, field), ref, field), field)
            outer.require_unchanged(ref, identity, field)
        rows = f"custom_dataset: !function {local_documents.__module__}.{local_documents.__name__}\n"
        task |= {
            "dataset_path": "arrow",
            "dataset_name": None,
            "dataset_kwargs": {"file": str(file.resolve())},
            "test_split": "test",
        }
        task |= {"training_split": None, "validation_split": None, "fewshot_split": None}
    for key, made in [(key, value) for key, value in task.items() if callable(value)]:
        rows += f"{key}: !function {made.__module__}.{made.__name__}\n"
        del task[key]
    task["task"] = own_name(name)
    (folder / TASK).write_text(yaml.safe_dump(task, sort_keys=False) + rows)
    return task["task"]


def lay_down_examples(
    name: str,
    params: dict[str, Any],
    ref: Reference,
    outer: Outer,
    folder: Path,
    identity: Mapping[str, Any] | None = None,
) -> Path:
    """Write the rows that the task `name` is to take solved examples from as `folder/examples`, a data set.

    Raises:
        InputError: they cannot be read.
    """
    field = f"score.tasks.{name}.shots_source"
    if (columns := task_columns(name, params)) is not None:
        table = open_source(ref, outer, field, columns, identity)
    else:
        module = module_of(declare.Task, name)
        table = datasets.Dataset.from_list(_own_documents(module, params, outer.local_file(ref, field), ref, field))
        outer.require_unchanged(ref, identity, field)
    table.save_to_disk(folder / "examples")
    return folder / "examples"


def _own_documents(module: Any, params: dict[str, Any], file: Path, ref: Reference, field: str) -> list[dict[str, Any]]:
    """The questions that a task finds in a file of its own format."""
    allowed = f"give such a file as the default of {field} is"
    try:
        documents = list(module.documents(file, **params))
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise InputError(field, f"{ref} cannot be read ({error})", allowed) from None
    if not documents:
        raise InputError(field, f"{ref} has no questions", allowed)
    return documents


def local_documents(*, file: str, **_: Any) -> dict[str, datasets.Dataset]:
    """What lm-eval calls for the rows of a task that is laid down here; it also gives the task's metadata."""
    return {"test": datasets.Dataset.from_file(file)}


def tokenizer_identity(folder: Path) -> str:
    """What the requests of a benchmark depend on in a model's folder: its tokenizer and the length of its window."""
    said = {
        key: value for key, value in read_config(folder).items() if "position" in key or key in ("n_ctx", "model_type")
    }
    return hashlib.sha256(json.dumps([said, tokenizer_digest(folder)]).encode()).hexdigest()[:12]
