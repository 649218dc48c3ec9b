"""augment: the prepared rows with the teacher's greedy answers in place of the training responses, or with both.

Batches of training prompts go through a Ray Data pipeline, as in `generate`; what comes out has the format of
`prepare`, so that all later steps take it as their data. Rows with both are put together without generating again.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kdray.artifacts.responses import read_responses, write_responses
from kdray.artifacts.rows import Rows, rows_files
from kdray.data.answers import Spoken, write_answered, write_both
from kdray.data.templates import open_template
from kdray.models.adapters import load_teacher
from kdray.models.generation import by_halves, generate_greedy
from kdray.models.load import load_tokenizer
from kdray.orchestration.items import Part, PromptBatch
from kdray.orchestration.pipeline import make_parts
from kdray.orchestration.resources import Resources
from kdray.orchestration.vllm import answer_by_vllm
from kdray.orchestration.work import Work
from kdray.plan import Step
from kdray.plan.inputs import AnswerInputs, JoinInputs, RetokeniseInputs
from kdray.score.prompt_file import write_prompts
from kdray.score.prompts import Prompt
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.folders import decoder_window, read_config
from kdray.store import Attempt

DECLARED = declare.Stage(version=5)


def augment(steps: list[Step[AnswerInputs | JoinInputs]], work: Work) -> None:
    """Make the missing ones of `steps`."""
    for step, attempt in work.each(steps):
        if isinstance(step.inputs, JoinInputs):
            write_both(Rows(work.folder(step.inputs.data)), Rows(work.folder(step.inputs.answers)), attempt.path)
            work.seal(step, attempt)
        else:
            _answer(step, step.inputs, attempt, work)


class Answerer:
    """Writes the teacher's answers to one batch of training prompts."""

    def __init__(
        self,
        teacher: Path,
        compute: str,
        data: Path,
        max_new_tokens: int,
        ends: list[int],
        quantise: str | None = None,
    ) -> None:
        self.model, self.tokenizer = load_teacher(teacher, getattr(torch, compute), quantise, "augment.quantise")
        self.rows, self.max_new_tokens, self.ends = Rows(data), max_new_tokens, ends

    def __call__(self, item: Part) -> None:
        prompts = [_prompt(self.rows, row) for row in item.rows]
        answers = by_halves(
            lambda some: generate_greedy(self.model, self.tokenizer, some, self.max_new_tokens, self.ends), prompts
        )
        write_responses(item.target, item.index, item.rows, answers)


def _prompt(rows: Rows, row: int) -> list[int]:
    return rows.input_ids(row)[: int(rows.prompt_lengths[row])]


def _answer(step: Step, inputs: AnswerInputs, attempt: Attempt, work: Work) -> None:
    """Ask the teacher what is not answered yet, and put the answers into the rows."""
    data, tokenizer = inputs.data, load_tokenizer(work.folder(inputs.data.inputs.tokenizer))
    folder = work.folder(inputs.across or data)  # of the prompts, in the teacher's tokens
    rows, max_new_tokens, compute = Rows(folder), step.params["max_new_tokens"], step.params["compute"]
    spoken = _spoken(rows, inputs.across, work) if inputs.across else None
    quantise = step.params.get("quantise")
    teacher, gpus = work.folder(inputs.teacher), work.gpus_for(inputs.teacher, compute, quantise)
    # A teacher as it is ends with its own token, one that was tuned on the rows with theirs.
    eos: Any = (spoken.tokenizer if spoken else tokenizer).eos_token_id
    make, ask = functools.partial(Answerer, teacher, compute, folder, max_new_tokens, [eos], quantise), None
    if step.params["engine"] == "vllm":
        prompts = work.scratch / f"{step.key.slug}.arrow"
        ask = functools.partial(ask_vllm, teacher, step.params, rows, prompts, [eos], work.resources)
    if error := make_parts("augment", _batches(rows, step.params["batch"]), attempt, make, work, gpus, ask):
        work.fail(step, error)
        return
    answers = read_responses(attempt.path)
    lengths = {"max_new_tokens": max_new_tokens, "max_length": data.params["max_length"]}
    lengths["known"] = read_config(work.folder(data.inputs.tokenizer)).get("vocab_size")
    learned, ids = Rows(work.folder(data)), (ids.as_py() for ids in answers)
    counts = write_answered(learned, ids, tokenizer, attempt.path, **lengths, spoken=spoken)
    thoughts, unfinished = counts.get("thoughts", 0), counts.get("unfinished", 0)
    if not counts["kept"]:
        reason = (
            f"{unfinished} are thoughts without an end: raise augment.max_new_tokens, or switch thinking off in"
            " data.template"
        )
        told = f" ({reason})" if unfinished else ""
        work.fail(step, f"the teacher has no usable answer to any of {counts['read']} prompts{told}")
        return
    work.seal(step, attempt, rows_files(attempt.path), **counts)
    work.progress.say(
        f"teacher's answers: {counts['kept']} kept of {counts['read']} ({counts['empty']} empty, "
        f"{counts['unknown']} with unknown tokens, {counts['truncated']} truncated)"
    )
    if thoughts:
        work.progress.say(
            f"{thoughts} of them began with a thought, which is left out; {unfinished} were nothing else, without"
            " its end"
        )


def _spoken(rows: Rows, across: Step[RetokeniseInputs], work: Work) -> Spoken:
    template = across.params["template"]
    before = " " if declared(declare.Template, template["name"]).space else ""
    decoder = decoder_window(work.folder(across.inputs.student))
    return Spoken(rows, load_tokenizer(work.folder(across.inputs.tokenizer)), open_template(template), before, decoder)


def ask_vllm(
    teacher: Path,
    params: Mapping[str, Any],
    rows: Rows,
    prompts: Path,
    ends: list[int],
    resources: Resources,
    items: list[Part],
) -> Iterator[tuple[str, str]]:
    """As a pipeline of `Answerer`s. An answer that vLLM has none of fails the step: rows are not left out by chance."""
    order = rows.train.tolist()
    write_prompts(prompts, [Prompt(row, _prompt(rows, row), "", "", [], []) for row in order])
    place = {row: i for i, row in enumerate(order)}
    batches = [
        PromptBatch(
            key=item.key,
            gpus=item.gpus,
            target=item.target,
            index=item.index,
            rows=[place[row] for row in item.rows],
            model=teacher,
            dtype=params["compute"],
            decoding={"name": "greedy", "params": {}},
            max_new_tokens=params["max_new_tokens"],
            prompts=prompts,
        )
        for item in items
    ]

    def keep(item: PromptBatch, answers: Sequence[list[int] | str], seconds: float, tokenizer: Any) -> None:
        if failed := [answer for answer in answers if isinstance(answer, str)]:
            raise RuntimeError(failed[0])
        asked = [order[i] for i in item.rows]
        write_responses(item.target, item.index, asked, [answer for answer in answers if not isinstance(answer, str)])

    return answer_by_vllm({teacher: batches}, keep, resources, ends)


def _batches(rows: Rows, size: int) -> list[list[int]]:
    """The training rows, longest prompt first, cut into batches: the same whatever is done already."""
    order = sorted(rows.train.tolist(), key=lambda row: (-int(rows.prompt_lengths[row]), row))
    return [order[i : i + size] for i in range(0, len(order), size)]
