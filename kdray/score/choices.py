"""Multiple-choice tasks through lm-eval: its own task files and its own code score the model.

A task is laid down as a small YAML file of lm-eval's, which includes the official one where there is one and
points it at the data. Given the same model, dtype and batch size the numbers are those of the `lm_eval` command.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdray.data.sources import FORMATS
from kdray.spec.components import component
from kdray.spec.refs import Reference
from kdray.store import Outer


def lay_down_task(name: str, params: dict[str, Any], ref: Reference, outer: Outer, folder: Path) -> None:
    """Write `folder/task.yaml` (and its data, where they are ours) for the choices task `name`."""
    declared = component("task", name, "score.tasks")
    module = importlib.import_module(f"kdray.score.tasks.{name}")
    folder.mkdir(parents=True, exist_ok=True)
    official = declared.constants.get("CONFIG")
    task: dict[str, Any] = {"include": str(official_tasks() / official)} if official else module.config()
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
        task |= {"training_split": None, "validation_split": None}
    task["task"] = f"kdray_{name}"
    (folder / "task.yaml").write_text(yaml.safe_dump(task, sort_keys=False))


def score_choices(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, params: dict[str, Any], folder: Path, batch: int
) -> tuple[dict[str, dict[str, float]], list[dict[str, Any]]]:
    """Score the task that was laid down in `folder`.

    Returns:
        {metric: {value, stderr, n}} in percent, and one row per question with its choices' log-likelihoods (nats).
    """
    # lm-eval wraps and lazily imports these, which hides their signatures from a type checker.
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    evaluate: Any = simple_evaluate
    lm: Any = HFLM
    answer = evaluate(
        model=lm(pretrained=model, tokenizer=tokenizer, batch_size=batch, backend="causal"),
        tasks=[f"kdray_{name}"],
        num_fewshot=params["shots"],
        limit=params["limit"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        verbosity="ERROR",
    )
    results, samples = answer["results"][f"kdray_{name}"], answer["samples"][f"kdray_{name}"]
    scores = {
        metric: {"value": 100 * results[f"{metric},none"], "stderr": 100 * results[f"{metric}_stderr,none"], "n": len(samples)}
        for metric in component("task", name, "score.tasks").constants["SHORT"]
    }
    rows = [
        {
            "example": sample["doc_id"],
            "target": str(sample["target"]),
            "loglikelihoods": [float(response[0]) for response in sample["filtered_resps"]],
            **{metric: float(sample[metric]) for metric in scores},
        }
        for sample in samples
    ]
    return scores, rows


def official_tasks() -> Path:
    """lm-eval's folder of task files."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "tasks"
