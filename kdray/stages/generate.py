"""generate: the answers of every model on every generation task, kept for good, so that metrics can come later.

A batch in which one prompt fails is answered prompt by prompt: the failing row is kept with its `error`, and its
neighbours with their answers. A row that nobody can be asked about is kept with the reason as its `error`. What a model
thinks before it answers is kept beside the answer, never as a part of it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from kdray.artifacts.answers import Row, measured_cost, write_answers
from kdray.artifacts.parts import carry_over, parts
from kdray.artifacts.rows import Rows
from kdray.data.known import unknown
from kdray.data.templates import open_template
from kdray.models.generation import by_halves
from kdray.models.load import load_tokenizer
from kdray.models.loaded import Load
from kdray.orchestration.items import PromptBatch
from kdray.orchestration.vllm import NOTHING_ASKED, answer_by_vllm
from kdray.orchestration.work import Work
from kdray.plan import Step
from kdray.plan.inputs import GenerateInputs
from kdray.score.answers import FATAL, Given, load_metric
from kdray.score.decodings import Decoding, open_citations, open_decoding
from kdray.score.kept import told_apart
from kdray.score.prompt_file import write_prompts
from kdray.score.prompts import Prompt, grid_prompts, stops_of, task_prompts, unseen_by
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.decodings import GUIDE
from kdray.spec.errors import InputError
from kdray.spec.folders import is_encoder_decoder, read_config, tokenizer_digest, window_of
from kdray.spec.metrics import metrics_of
from kdray.spec.sections.base import Use
from kdray.store import Attempt

DECLARED = declare.Stage(version=3)


@dataclass(frozen=True)
class Asked:
    """A task's prompts on disk, and how they are cut into batches, by their rows; those of refused ones come first."""

    path: Path
    batches: list[range]
    refused: int  # batches
    cut: int  # texts that have lost their end to the model's window


def generate(steps: Sequence[Step[GenerateInputs]], work: Work) -> Generating:
    """What the schedule does of the missing ones of `steps`."""
    return Generating(steps, work)


class Generating:
    """Batches of prompts, grouped by model."""

    def __init__(self, steps: Sequence[Step[GenerateInputs]], work: Work) -> None:
        self.steps, self.work = steps, work
        self.asked: dict[str, Asked | InputError] = {}

    def look(self) -> None:
        """Open the data of every task and write its prompts, and copy what decodings read, before anything is trained.

        Raises:
            InputError: some cannot be used.
        """
        for step in self.steps:
            _read_by_decoding(step, self.work)
        for step in self.work.once_an_origin(self.steps):
            if isinstance(asked := self.asked_of(step), InputError):
                raise asked

    def begin(self, claimed: Sequence[tuple[Step[GenerateInputs], Attempt]]) -> list[list[PromptBatch]]:
        groups = defaultdict[Path, list[PromptBatch]](list)
        for step, attempt in claimed:
            asked, present = self.asked_of(step), carry_over(attempt)
            if isinstance(asked, InputError):
                self.work.fail(step, str(asked))
                continue
            for item in _items(step, attempt.path, asked, self.work):
                if item.index in present:
                    continue
                if item.index < asked.refused:
                    keep(item, [str(prompt.refused) for prompt in item.read()], 0.0, None)
                else:
                    groups[item.model].append(item)
        return list(groups.values())

    def finish(self, step: Step[GenerateInputs], attempt: Attempt) -> None:
        asked = self.asked_of(step)
        assert isinstance(asked, Asked)
        if len(parts(attempt.path)) == len(asked.batches):
            cost = measured_cost(attempt.path)
            seconds = {"seconds": cost["answer_seconds"]} if cost else {}  # without those that it waited for an actor
            self.work.seal(step, attempt, None, cut=asked.cut, **cost, **seconds)

    def asked_of(self, step: Step[GenerateInputs]) -> Asked | InputError:
        """The prompts, written for the first model that is asked them and told of if some are refused or cut; a task
        whose data cannot be used fails alone.
        """
        if (kind := what_is_asked(step, self.work)) not in self.asked:
            try:
                name = hashlib.sha256(kind.encode()).hexdigest()[:16]  # others of this run write there too
                self.asked[kind] = _write(step, self.work.scratch / f"prompts-{name}.arrow", self.work)
            except InputError as error:
                self.asked[kind] = error
        return self.asked[kind]


def generate_by_vllm(steps: Sequence[Step[GenerateInputs]], work: Work) -> None:
    """Make the missing ones of `steps` with vLLM, which takes all GPUs."""
    while True:
        with work.claim(steps) as claimed:
            if not claimed:
                return
            stage, groups = generate(steps, work), defaultdict[Path, list[PromptBatch]](list)
            for group in stage.begin(claimed):
                groups[group[0].model] += group
            errors: dict[str, str] = {}
            with work.progress.bar("generate", sum(map(len, groups.values())), "batches") as bar:
                for key, error in answer_by_vllm(groups, keep, work.resources):
                    errors |= {key: error} if error else {}
                    bar.advance()
            for step, attempt in claimed:
                if step.key.id in errors:
                    work.fail(step, errors[step.key.id])
                elif step.key.id not in work.failed:
                    stage.finish(step, attempt)


class Generator:
    """Answers one batch of prompts, by a model that `load` gives."""

    def __init__(self, load: Load) -> None:
        self.load = load

    def __call__(self, item: PromptBatch) -> None:
        if item.index in parts(item.target):  # of an actor that was lost with others of its batches to answer
            return
        loaded, prompts = self.load(item.model, item.dtype), item.read()
        decode, began = open_decoding(**item.decoding), time.perf_counter()
        answers = answer_all(decode, loaded.model, loaded.tokenizer, prompts, item.max_new_tokens)
        rows = rows_of(item, answers, loaded.tokenizer)
        if cite := open_citations(**item.decoding):
            rows = [row if row["error"] else row | {"cited": cite(loaded, row)} for row in rows]
        write_answers(item.target, item.index, rows, time.perf_counter() - began)


def keep(item: PromptBatch, answers: Sequence[list[int] | str], seconds: float, tokenizer: Any) -> None:
    """Write the answers to a batch of prompts as a part; `answers` are token ids, or why there is none."""
    write_answers(item.target, item.index, rows_of(item, answers, tokenizer), seconds)


def rows_of(item: PromptBatch, answers: Sequence[list[int] | str], tokenizer: Any) -> list[Row]:
    """The answers to a batch of prompts as they are kept."""
    rows = []
    for prompt, answer in zip(item.read(), answers, strict=True):
        row = {**vars(prompt), "output_ids": [], "answer": "", "error": None, "thought_ids": []}
        if isinstance(answer, str):
            row["error"] = answer
        else:
            row |= told_apart(prompt.input_ids, answer, item.stops, tokenizer)
        rows.append(row)
    return rows


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


def _write(step: Step[GenerateInputs], path: Path, work: Work) -> Asked:
    """Write a task's prompts, longest first, those that are refused before all others: the same whatever is done.

    Raises:
        InputError: its data cannot be used.
    """
    prompts, task = prompts_of(step, work), step.params["task"]["name"]
    prompts.sort(key=lambda prompt: (not prompt.refused, -len(prompt.input_ids), prompt.example))
    write_prompts(path, prompts)
    refused, cut = [prompt for prompt in prompts if prompt.refused], sum(prompt.cut for prompt in prompts)
    if refused:
        work.progress.say(
            f"[yellow]{task}[/]: {len(refused)} of {len(prompts)} rows cannot be asked and count as failed; row"
            f" {refused[0].example}: {escape(str(refused[0].refused))}"
        )
    if cut:
        work.progress.say(
            f"{task}: {cut} of {len(prompts)} texts are too long for the model's window and lose their end"
        )
    for use in _text_metrics(task, work):
        if reason := unseen_by(load_metric(use.name, use.params, Given({})), prompts):
            work.progress.say(f"[yellow]{task}[/] will have no number of {use.name}: {escape(reason)}")
    ends, size = (0, len(refused), len(prompts)), step.params["batch"]
    kinds = [[range(i, min(i + size, end)) for i in range(begin, end, size)] for begin, end in itertools.pairwise(ends)]
    return Asked(path, [*kinds[0], *kinds[1]], len(kinds[0]), cut)


def _text_metrics(task: str, work: Work) -> list[Use]:
    """The metrics without a model that will be taken of a task's answers."""
    score = work.plan.grid.score
    uses = [use for asked in score.tasks if asked.name == task for use in metrics_of(asked, score.metrics)]
    return [use for use in uses if not declared(declare.Metric, use.name).slow]


def prompts_of(step: Step[GenerateInputs], work: Work) -> list[Prompt]:
    """The task's prompts for the step's model."""
    task, params = step.params["task"], step.params
    folder = work.origin(step.inputs.model)
    window, encoded = window_of(folder), is_encoder_decoder(read_config(folder))
    room = window if window is None or encoded else window - task["params"]["max_new_tokens"]
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
            task["name"],
            task["params"],
            step.source,
            work.outer,
            tokenizer,
            template,
            room,
            task["source"],
            encoded=encoded,
        )
    _require_known(prompts, folder, task["name"])
    return prompts


def _require_known(prompts: Sequence[Prompt], folder: Path, task: str) -> None:
    """Whether the model in a folder has an embedding of every token of the prompts."""
    size: int | None = read_config(folder).get("vocab_size")
    largest = [(max(prompt.input_ids, default=0), prompt.example + 1) for prompt in prompts]
    if size and (strange := [(token, row) for token, row in largest if token >= size]):
        raise unknown(f"score.tasks.{task}", size, strange[0][0], load_tokenizer(folder), (row for _, row in strange))


def what_is_asked(step: Step[GenerateInputs], work: Work) -> str:
    """What the prompts depend on: all students of a grid share them, models with other tokenizers do not."""
    folder = work.origin(step.inputs.model)
    kind = {key: step.params[key] for key in ("task", "batch", "template") if key in step.params}
    return json.dumps([kind, tokenizer_digest(folder)])


def _items(step: Step[GenerateInputs], target: Path, asked: Asked, work: Work) -> list[PromptBatch]:
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
            prompts=asked.path,
            rows=rows,
            stops=stops_of(task["name"], task["params"]),
        )
        for i, rows in enumerate(asked.batches)
    ]


def _decoding(step: Step[GenerateInputs], work: Work) -> dict[str, Any]:
    """Name and parameters of the step's decoding, files and the grid's lens by their paths."""
    decoding = step.params["decoding"]
    if isinstance(decoding, str):
        return {"name": decoding, "params": {}}
    paths = _read_by_decoding(step, work)
    if step.inputs.guide:
        paths[GUIDE] = work.folder(step.inputs.guide)
    return {"name": decoding["name"], "params": decoding["params"] | {name: str(path) for name, path in paths.items()}}


def _read_by_decoding(step: Step[GenerateInputs], work: Work) -> dict[str, Path]:
    """Copies of the files and folders that a decoding reads as long as the run takes, by parameter: what lies at their
    own places may be another by then.

    Raises:
        InputError: one is not what it was when the run began.
    """
    copies = {}
    for name, ref in step.files.items():
        source, identity = Path(ref.name).resolve(), step.params["decoding"]["params"][name]
        copies[name] = copy = work.scratch / identity["sha256"] / source.name
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, copy)
            work.outer.require_unchanged(ref, identity, ref.field)
    return copies
