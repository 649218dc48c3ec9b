"""What lm-eval makes of a benchmark's answers, as kdray keeps it: a row a question, and one number a metric."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from kdray.score.calibration import Choice
from kdray.score.spellings import together

# in percent
SHARES = {"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "f1", "em", "mcc", "mc1", "mc2", "mc3"}


def examples_of(
    task: Any, samples: list[dict[str, Any]], wrong: dict[int, str], either_case: bool
) -> Iterator[dict[str, Any]]:
    """One row a question, of its first filter."""
    errors = {request.doc_id: wrong[id(request)] for request in task.instances if id(request) in wrong}
    for sample in samples:
        if sample["filter"] != samples[0]["filter"]:
            return
        answers = [answer for answer in sample["filtered_resps"] if isinstance(answer, tuple)]
        if either_case:
            answers = [] if sample["doc_id"] in errors else together(answers)
        row: dict[str, Any] = {"example": sample["doc_id"], "task": task.task_name, "target": str(sample["target"])}
        row |= {"error": errors.get(sample["doc_id"], ""), "gold": None, "chosen": None}
        row |= {"loglikelihoods": [float(answer[0]) for answer in answers]}
        row |= {"answers": [answer for answer in sample["filtered_resps"] if isinstance(answer, str)]}
        row |= {
            name: float(sample[name]) for name in sample["metrics"] if isinstance(sample[name], int | float | np.number)
        }
        gold = _gold(task, sample["doc"]) if task.OUTPUT_TYPE == "multiple_choice" and not row["error"] else None
        if gold is not None:
            row["loglikelihoods"] = row["loglikelihoods"][: len(task.doc_to_choice(sample["doc"]))]
            row |= {"gold": gold, "chosen": Choice(row["loglikelihoods"], gold).chosen}
        yield row


def _gold(task: Any, doc: Any) -> int | None:
    """Which choice is right; None where it is not exactly one."""
    choices = task.doc_to_choice(doc)
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    gold = choices.index(gold) if isinstance(gold, str) and gold in choices else gold
    return gold if isinstance(gold, int) and 0 <= gold < len(choices) else None


def scores_of(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """lm-eval's numbers of one task or group; a filter's name is added where there is one."""
    scores = {}
    for key, value in results.items():
        metric, comma, filter_ = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        scale = 100 if metric in SHARES else 1
        stderr = results.get(f"{metric}_stderr,{filter_}")
        stderr = float(stderr) if isinstance(stderr, int | float) else 0.0
        name = metric if filter_ == "none" else f"{metric}_{filter_}"
        scores[name] = {"value": scale * float(value), "stderr": scale * stderr, "n": results["sample_len"]}
    return scores
