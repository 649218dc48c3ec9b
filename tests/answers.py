"""Answers and their scores as the stages write them, without Ray."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdray.models.loaded import load_as
from kdray.orchestration.items import PromptBatch
from kdray.orchestration.measurer import AnswerMetrics, Measurer, MetricUse
from kdray.plan import Step
from kdray.score.prompt_file import write_prompts
from kdray.score.prompts import Prompt
from kdray.store import Attempt


def prompt_batch(target: Path, prompts: Sequence[Prompt], index: int = 0, **changes: Any) -> PromptBatch:
    """A batch of greedily answered prompts, of a model in the folder `model` beside the target."""
    given: dict[str, Any] = {"model": target.parent / "model", "dtype": "float32", "max_new_tokens": 8}
    given |= {"decoding": {"name": "greedy", "params": {}}} | changes
    path = target / f"{index}.arrow"
    write_prompts(path, prompts)
    return PromptBatch(key=str(index), target=target, index=index, prompts=path, rows=range(len(prompts)), **given)


SOURCE = "Ada is in Paris now. Ben is in Rome now. Cleo is in Oslo now."
ANSWER = "Ada lives in Paris. Ben lives in Rome."


def cited_row(tokenizer: Any, example: int, best: float = 1.0) -> dict[str, Any]:
    """A kept answer of two statements whose best citations have this reward, and the plain ones 0."""

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    statements = [
        {"text": text.strip(), "tokens": len(ids(text)), "plain": "[3-3]", "plain_reward": 0.0, "best": cited}
        for text, cited in (("Ada lives in Paris.", "[1-1]"), (" Ben lives in Rome.", "[2-2]"))
    ]
    cited = {"cut": 0, "statements": [each | {"best_reward": best, "sound": 1.0} for each in statements]}
    asked = {"example": example, "input_ids": ids(f"Read : {SOURCE} Where {example} ?"), "source": SOURCE}
    said = {"output_ids": ids(ANSWER), "answer": ANSWER, "error": None, "thought_ids": [], "cited": cited}
    return {"question": "", "references": [], "wrong": [], **asked, **said}


def measure_answers(step: Step, outputs: Path, attempt: Attempt) -> None:
    """Take the text metrics that a step asks for of the answers in a folder."""
    metrics = tuple(MetricUse(metric["name"], metric["params"]) for metric in step.params["metrics"])
    cache, answerer = attempt.path / "cache", outputs.parent / "model"
    item = AnswerMetrics(
        key=step.key.id, target=attempt.path, outputs=outputs, answerer=answerer, metrics=metrics, cache=cache
    )
    Measurer(load_as)(item)
