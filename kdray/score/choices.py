"""Multiple-choice tasks as lm-eval's task files, its official ones wherever there are.

A task is laid down as a small YAML file, which includes the official one and points it at the data.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import yaml

from kdray.data.sources import FORMATS
from kdray.plan.benchmarks import official_tasks, task_files
from kdray.spec.components import component
from kdray.spec.folders import read_config, window_of
from kdray.spec.refs import Reference
from kdray.store import Outer

TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "vocab.json")


def lay_down_task(name: str, params: dict[str, Any], ref: Reference, outer: Outer, folder: Path) -> str:
    """Write `folder/task.yaml` (and its data, where they are ours) for the choices task `name`; returns lm-eval's name for it.

    `name` is a component's, or `lm_eval:NAME` for a task of lm-eval's with data of one's own.
    """
    base, _, official_name = name.partition(":")
    module = importlib.import_module(f"kdray.score.tasks.{base}")
    folder.mkdir(parents=True, exist_ok=True)
    config = component("task", name, "score.tasks").constants.get("CONFIG")
    official = task_files()[official_name] if official_name else official_tasks() / config if config else None
    task: dict[str, Any] = {"include": str(official)} if official else module.config()
    if ref.scheme == "hf":
        task |= {"dataset_path": ref.name, "dataset_name": ref.config, "dataset_kwargs": {"revision": outer.pinned(ref).version}}
        task |= {"test_split": ref.split or "test", "validation_split": None}
    else:
        file = outer.local_file(ref, f"score.tasks.{name}.source")
        if not official:
            lines = [json.dumps(document) for document in module.documents(file, **params)]
            file = folder / "documents.jsonl"
            file.write_text("\n".join(lines) + "\n")
        task |= {"dataset_path": FORMATS[file.suffix], "dataset_name": None, "test_split": "test"}
        task |= {"dataset_kwargs": {"data_files": {"test": str(file.resolve())}}}
        task |= {"training_split": None, "validation_split": None, "fewshot_split": None}
    task["task"] = f"kdray_{official_name or name}"
    (folder / "task.yaml").write_text(yaml.safe_dump(task, sort_keys=False))
    return task["task"]


def tokenizer_identity(folder: Path) -> str:
    """What the requests of a benchmark depend on in a model's folder: its tokenizer and the length of its window."""
    config = json.loads((folder / "config.json").read_text())
    parts = [json.dumps({key: value for key, value in config.items() if "position" in key or key in ("n_ctx", "model_type")})]
    parts += [f"window {window_of(folder)}", f"tokens {read_config(folder).get('vocab_size')}"]
    parts += [f"{name} {hashlib.sha256((folder / name).read_bytes()).hexdigest()}" for name in TOKENIZER if (folder / name).is_file()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
