"""generate: the answers of every model on every generation task, kept for good, so that metrics can come later.

A batch in which one prompt fails is answered prompt by prompt: the failing row is kept with its `error`, and its
neighbours with their answers. A row that nobody can be asked about is kept with the reason as its `error`. What a model
thinks before it answers is kept beside the answer, never as a part of it.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape

from kdray.artifacts.answers import measured_cost, write_answers
from kdray.artifacts.parts import carry_over, parts
from kdray.artifacts.rows import Rows
from kdray.data.known import unknown
from kdray.data.templates import open_template
from kdray.models.generation import by_halves
from kdray.models.load import Latest, load_placed, load_tokenizer
from kdray.orchestration.items import PromptBatch
from kdray.orchestration.pipeline import run_pipeline, spread
from kdray.orchestration.vllm import NOTHING_ASKED, answer_by_vllm
from kdray.orchestration.work import Work
from kdray.plan import Step
from kdray.plan.inputs import GenerateInputs
from kdray.report.costs import costs
from kdray.score.answers import FATAL, Given, load_metric
from kdray.score.decodings import Decoding, open_decoding
from kdray.score.kept import told_apart
from kdray.score.prompts import Prompt, grid_prompts, stops_of, task_prompts, unseen_by
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.decodings import GUIDE
from kdray.spec.errors import InputError
from kdray.spec.folders import read_config, tokenizer_digest, window_of
from kdray.spec.metrics import metrics_of
from kdray.spec.sections.base import Use

DECLARED = declare.Stage(version=3)


def generate(steps: list[Step[GenerateInputs]], work: Work) -> None:
    """Make the missing ones of `steps`: batches of prompts, grouped by model."""
    while True:
        with work.claim(steps) as claimed:
            if not claimed:
                return
            prompts: dict[str, list[list[Prompt]] | InputError] = {}
            groups = defaultdict[Path, list[PromptBatch]](list)
            expected: dict[str, int] = {}
            cut: dict[str, int] = {}
            for step, attempt in claimed:
                asked, present = _asked(step, work), carry_over(attempt)
                if asked not in prompts:
                    prompts[asked] = _batches_or_why_not(step, work)
                batches = prompts[asked]
                if isinstance(batches, InputError):
                    work.fail(step, str(batches))
                    continue
                expected[step.key.id], cut[step.key.id] = len(batches), _cut(batches)
                for item in _items(step, attempt.path, batches, work):
                    if item.index in present:
                        continue
                    if refusals := [prompt.refused for prompt in item.prompts if prompt.refused]:
                        keep(item, refusals, 0.0, None)
                    else:
                        groups[item.model].append(item)
            errors: dict[str, str] = {}
            with work.progress.bar("generate", sum(map(len, groups.values())), "batches") as bar:
                if work.plan.grid.score.engine == "vllm":
                    answered = answer_by_vllm(groups, keep, work.resources)
                else:
                    answered = run_pipeline(spread(list(groups.values()), work.resources), Generator, work.resources)
                for key, error in answered:
                    errors |= {key: error} if error else {}
                    bar.advance()
            for step, attempt in claimed:
                if step.key.id in work.failed:
                    continue
                if step.key.id in errors:
                    work.fail(step, errors[step.key.id])
                elif len(parts(attempt.path)) == expected[step.key.id]:
                    work.seal(step, attempt, None, cut=cut[step.key.id], **measured_cost(attempt.path))
            for line in costs(work.plan.scores, work.store):
                work.progress.say(line)


class Generator:
    """Answers one batch of prompts; keeps the model it loaded last."""

    def __init__(self) -> None:
        self.load = Latest(load_placed)

    def __call__(self, item: PromptBatch) -> None:
        model, tokenizer = self.load(item.model, getattr(torch, item.dtype))
        decode, began = open_decoding(**item.decoding), time.perf_counter()
        answers = answer_all(decode, model, tokenizer, item.prompts, item.max_new_tokens)
        keep(item, answers, time.perf_counter() - began, tokenizer)


def keep(item: PromptBatch, answers: Sequence[list[int] | str], seconds: float, tokenizer: Any) -> None:
    """Write the answers to a batch of prompts as a part; `answers` are token ids, or why there is none."""
    rows = []
    for prompt, answer in zip(item.prompts, answers, strict=True):
        row = {**vars(prompt), "output_ids": [], "answer": "", "error": None, "thought_ids": []}
        if isinstance(answer, str):
            row["error"] = answer
        else:
            row |= told_apart(prompt.input_ids, answer, item.stops, tokenizer)
        rows.append(row)
    write_answers(item.target, item.index, rows, seconds)


def answer_all(
    decode: Decoding, model: Any, tokenizer: Any, prompts: Sequence[Prompt], max_new_tokens: int
) -> list[list[int] | str]:
    """The answer to every prompt, as token ids, or in its place why there is none; a prompt without a token has none.

    Where a GPU's memory is too short for all at once, they are answered in halves.

    Raises:
        Exception: several prompts fail, each by itself, or memory is short even for one: no row is to blame, another
            attempt may do better.
    """
    if asked := [prompt for prompt in prompts if prompt.input_ids]:
        answers = iter(_answer_all(decode, model, tokenizer, asked, max_new_tokens))
        return [next(answers) if prompt.input_ids else prompt.refused or NOTHING_ASKED for prompt in prompts]
    return [prompt.refused or NOTHING_ASKED for prompt in prompts]


def _answer_all(
    decode: Decoding, model: Any, tokenizer: Any, prompts: Sequence[Prompt], max_new_tokens: int
) -> list[list[int] | str]:
    try:
        return by_halves(lambda some: decode(model, tokenizer, some, max_new_tokens), prompts)
    except (*FATAL, InputError):
        raise
    except Exception as failure:
        if len(prompts) == 1:
            return [f"{type(failure).__name__}: {failure}"]
        one_by_one = [
            answer for prompt in prompts for answer in _answer_all(decode, model, tokenizer, [prompt], max_new_tokens)
        ]
        if all(isinstance(answer, str) for answer in one_by_one):
            raise
        return one_by_one


def _batches_or_why_not(step: Step[GenerateInputs], work: Work) -> list[list[Prompt]] | InputError:
    """The batches of a task's prompts, told of if some are refused or cut; a task whose data cannot be used fails
    alone.
    """
    try:
        batches = _batches(step, work)
    except InputError as error:
        return error
    task = step.params["task"]["name"]
    refused = [prompt for batch in batches for prompt in batch if prompt.refused]
    asked = sum(map(len, batches))
    if refused:
        reason = escape(str(refused[0].refused))
        work.progress.say(
            f"[yellow]{task}[/]: {len(refused)} of {asked} rows cannot be asked and count as failed; row"
            f" {refused[0].example}: {reason}"
        )
    if cut := _cut(batches):
        work.progress.say(f"{task}: {cut} of {asked} texts are too long for the model's window and lose their end")
    for use in _text_metrics(task, work):
        if reason := unseen_by(
            load_metric(use.name, use.params, Given({})), list(itertools.chain.from_iterable(batches))
        ):
            work.progress.say(f"[yellow]{task}[/] will have no number of {use.name}: {escape(reason)}")
    return batches


def _cut(batches: Sequence[Sequence[Prompt]]) -> int:
    """How many texts have lost their end to the model's window."""
    return sum(prompt.cut for batch in batches for prompt in batch)


def _text_metrics(task: str, work: Work) -> list[Use]:
    """The metrics without a model that will be taken of a task's answers."""
    score = work.plan.grid.score
    uses = [use for asked in score.tasks if asked.name == task for use in metrics_of(asked, score.metrics)]
    return [use for use in uses if not declared(declare.Metric, use.name).slow]


def _batches(step: Step[GenerateInputs], work: Work) -> list[list[Prompt]]:
    """The task's prompts, longest first, cut into batches: the same whatever is done already.

    Refused ones come first, by themselves.
    """
    task, params = step.params["task"], step.params
    folder = work.folder(step.inputs.model)
    window = window_of(folder)
    room = None if window is None else window - task["params"]["max_new_tokens"]
    asked = declared(declare.Task, task["name"])
    assert isinstance(asked, declare.AnswerTask)
    if asked.rows:
        assert step.inputs.data is not None
        prompts = grid_prompts(
            task["name"], Rows(work.folder(step.inputs.data)), asked.rows, task["params"]["limit"], room
        )
    else:
        template = open_template(params["template"]) if "template" in params else None
        assert step.source is not None
        tokenizer = load_tokenizer(folder)
        prompts = task_prompts(
            task["name"], task["params"], step.source, work.outer, tokenizer, template, room, task["source"]
        )
    _require_known(prompts, folder, task["name"])
    prompts.sort(key=lambda prompt: (-len(prompt.input_ids), prompt.example))
    kinds = [[prompt for prompt in prompts if bool(prompt.refused) is refused] for refused in (True, False)]
    return [kind[i : i + params["batch"]] for kind in kinds for i in range(0, len(kind), params["batch"])]


def _require_known(prompts: Sequence[Prompt], folder: Path, task: str) -> None:
    """Whether the model in a folder has an embedding of every token of the prompts."""
    size: int | None = read_config(folder).get("vocab_size")
    largest = [(max(prompt.input_ids, default=0), prompt.example + 1) for prompt in prompts]
    if size and (strange := [(token, row) for token, row in largest if token >= size]):
        raise unknown(f"score.tasks.{task}", size, strange[0][0], load_tokenizer(folder), (row for _, row in strange))


def _asked(step: Step[GenerateInputs], work: Work) -> str:
    """What the prompts depend on: all students of a grid share them, models with other tokenizers do not."""
    folder = work.folder(step.inputs.model)
    kind = {key: step.params[key] for key in ("task", "batch", "template") if key in step.params}
    return json.dumps([kind, tokenizer_digest(folder)])


def _items(
    step: Step[GenerateInputs], target: Path, batches: Sequence[Sequence[Prompt]], work: Work
) -> list[PromptBatch]:
    task, model, dtype = step.params["task"], step.inputs.model, step.params["dtype"]
    gpus, folder, decoding = work.gpus_for(model, dtype), work.folder(model), _decoding(step, work)
    return [
        PromptBatch(
            key=step.key.id,
            gpus=gpus,
            target=target,
            index=i,
            model=folder,
            dtype=dtype,
            decoding=decoding,
            max_new_tokens=task["params"]["max_new_tokens"],
            prompts=batch,
            stops=stops_of(task["name"], task["params"]),
        )
        for i, batch in enumerate(batches)
    ]


def _decoding(step: Step[GenerateInputs], work: Work) -> dict[str, Any]:
    """Name and parameters of the step's decoding, files and the grid's lens by their paths."""
    decoding = step.params["decoding"]
    if isinstance(decoding, str):
        return {"name": decoding, "params": {}}
    paths = {name: Path(ref.name).resolve() for name, ref in step.files.items()}
    if step.inputs.guide:
        paths[GUIDE] = work.folder(step.inputs.guide)
    return {"name": decoding["name"], "params": decoding["params"] | {name: str(path) for name, path in paths.items()}}
