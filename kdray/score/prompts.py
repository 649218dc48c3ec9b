"""The prompts of a generation task, as rows with an order that never changes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from kdray.artifacts.rows import Rows
from kdray.data.example import Example
from kdray.data.sources import open_source
from kdray.data.templates.chat import chat
from kdray.data.tokenise import marked, plain_prompt
from kdray.data.words import ends_of_words
from kdray.score.answers import FATAL, Answer
from kdray.score.question import Form, Question
from kdray.score.rows import Unusable
from kdray.spec import declare
from kdray.spec.columns import task_columns
from kdray.spec.components import load, module_of
from kdray.spec.errors import InputError
from kdray.spec.refs import Reference
from kdray.store import Outer

LOOKED_AT = 20  # prompts
PLACE = re.compile(r"\{(?:instruction|question|text)\}")  # in a form; what stands there may hold such words itself
NOT_OF_A_ROW = ("source", "limit", "prompt", "max_new_tokens")  # parameters of the task, not of its function's work


@dataclass(frozen=True)
class Prompt:
    """What a model is given, and what its answer is compared with."""

    example: int
    input_ids: list[int]
    question: str
    source: str  # the text that the answer must be true to, as far as the model is shown it
    references: list[str]
    wrong: list[str]
    refused: str | None = None  # why nobody is asked: then there are no ids
    cut: bool = False  # whether the text has lost its end to the model's window
    id: str = ""  # what the data set calls the row, where the task reads that


def grid_prompts(
    task: str, rows: Rows, side: Literal["unseen", "train"], limit: int | None, room: int | None
) -> list[Prompt]:
    """The prompts of the grid's own rows, token for token as in training; the unseen ones are the test rows or,
    without, the held-out.

    One of more than `room` tokens is refused.

    Raises:
        InputError: all are.
    """
    unseen = rows.test if len(rows.test) else rows.heldout
    chosen, prompts = unseen if side == "unseen" else rows.train, []
    for row in chosen[:limit].tolist():
        ids = rows.input_ids(row)[: int(rows.prompt_lengths[row])]
        instruction, context, response = (rows.text(row, column) for column in ("instruction", "context", "response"))
        if room is not None and len(ids) > room:
            reason = str(_no_room(task, f"a prompt of {len(ids)} tokens", room))
            prompts.append(Prompt(int(row), [], instruction, context, [response], [], refused=reason))
        else:
            prompts.append(Prompt(int(row), ids, instruction, context, [response], []))
    return _some_asked(prompts, task, "the grid's data")


def task_prompts(
    name: str,
    params: dict[str, Any],
    ref: Reference,
    outer: Outer,
    tokenizer: PreTrainedTokenizerBase,
    template: Callable[[Example, Any], str] | None,
    room: int | None,
    identity: Mapping[str, Any] | None = None,
    *,
    encoded: bool = False,
) -> list[Prompt]:
    """The prompts of a task with a data set of its own, in the task's form `prompt`, or in `template`; `encoded`: as an
    encoder reads them, with the special tokens of every text around them.

    `room` is the most tokens that a prompt may have. A text that is too long loses its end, never the instruction or
    its beginning. A row without what the task needs is refused, as is one whose prompt has no room. `identity` is the
    data set's content when the run began.

    Raises:
        InputError: the data set lacks a column that the task needs, or all of its rows are refused.
    """
    module = module_of(declare.Task, name)
    make: Callable[..., Question] = load(declare.Task, name)
    own_chat = template if getattr(template, "func", template) is chat else chat  # with what the grid gives it
    templates = {"chat": own_chat, "template": template}
    write = _writer(
        getattr(module, "FORMS", {}).get(params["prompt"]) or templates[params["prompt"]], tokenizer, encoded
    )
    table = open_source(ref, outer, f"score.tasks.{name}.source", task_columns(name, params) or (), identity)
    settings = {key: value for key, value in params.items() if key not in NOT_OF_A_ROW}
    prompts, refusals, ids_seen = [], [], dict[str, int]()
    for i, row in enumerate(table.select(range(min(len(table), params["limit"] or len(table))))):
        try:
            question = make(row, source=str(ref), **settings)  # every task has it, and not every one a default
        except KeyError as error:
            known = ", ".join(table.column_names)
            raise InputError(f"score.tasks.{name}.source", f"no column {error} in {ref}", f"it has {known}") from None
        except FATAL:
            raise
        except Exception as failure:  # noqa: BLE001 - kept in the row, which is counted as failed
            reason = str(failure) if isinstance(failure, Unusable) else f"{type(failure).__name__}: {failure}"
            prompts.append(Prompt(i, [], "", "", [], [], refused=reason))
            continue
        if question.id and (first := ids_seen.setdefault(question.id, i)) != i:
            found = f"the id '{question.id}' twice in {ref}, in rows {first + 1} and {i + 1}"
            raise InputError(f"score.tasks.{name}.id", found, "give every row an id of its own, or name no column")
        refused, text, ids = None, "", []
        try:
            text, ids = _fit(lambda text, asked=question: write(asked, text), question.text, room)
        except InputError as error:  # a chat template refuses this row, or every one
            own = InputError(f"score.tasks.{name}.prompt", f"chat, but {error.found}", "use another prompt")
            refusals.append(own if params["prompt"] == "chat" and error.field == "data.template" else error)
            refused = str(refusals[-1])
        if room is not None and len(ids) > room:
            refused = str(_no_room(name, f"a prompt of {len(ids)} tokens without its text (row {i})", room))
        elif question.text and not text and not refused:
            refused = str(_no_room(name, f"a prompt with no word of its text (row {i})", room or 0))
        cut = text != question.text and not refused
        of_row = (question.asks, text, question.references, question.wrong, refused, cut, question.id)
        prompts.append(Prompt(i, [] if refused else ids, *of_row))
    if refusals and len(refusals) == len(prompts):
        raise refusals[0]
    return _some_asked(prompts, name, str(ref))


def _some_asked(prompts: list[Prompt], task: str, where: str) -> list[Prompt]:
    """`prompts`, of which at least one is not refused.

    Raises:
        InputError: all are.
    """
    if prompts and all(prompt.refused for prompt in prompts):
        found = f"no model can be asked about any row of {where}: {prompts[0].refused}"
        raise InputError(f"score.tasks.{task}", found, "give rows that have what the task needs")
    return prompts


def unseen_by(metric: Callable[[list[Answer]], list[dict[str, Any]]], prompts: Sequence[Prompt]) -> str | None:
    """Why a metric of texts can score no answer to any of the first `prompts`, as good as it may be; None if it can.

    So a metric that does not see the language is found out before a model is asked.
    """
    asked = [prompt for prompt in prompts if prompt.references and not prompt.refused][:LOOKED_AT]
    best = [
        Answer(prompt.references[0], prompt.question, prompt.source, prompt.references, prompt.wrong)
        for prompt in asked
    ]
    errors = [row.get("error") for row in metric(best)] if best else []
    return errors[0] if all(errors) and errors else None


def _no_room(task: str, found: str, room: int) -> InputError:
    return InputError(
        f"score.tasks.{task}.max_new_tokens", found, f"beside the answer the model's window has room for {max(room, 0)}"
    )


def stops_of(name: str, params: dict[str, Any]) -> list[str]:
    """The strings that end an answer to a task's prompts."""
    forms = getattr(module_of(declare.Task, name), "FORMS", {})
    form: Form | None = forms.get(params.get("prompt"))
    return list(form.stops) if form else []


def cut_at_stop(ids: list[int], stops: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], str]:
    """An answer up to the first stop behind its first word: the fewest ids that hold it, and the text before it."""
    text = str(tokenizer.decode(ids, skip_special_tokens=True))
    if (end := _stop(text, stops)) is None:
        return ids, text.strip()
    low, high = 0, len(ids)  # the stop is within the first `high` ids, and not within the first `low`
    while high - low > 1:
        middle = (low + high) // 2
        found = _stop(str(tokenizer.decode(ids[:middle], skip_special_tokens=True)), stops) is not None
        low, high = (low, middle) if found else (middle, high)
    return ids[:high], text[:end].strip()


def _stop(text: str, stops: Sequence[str]) -> int | None:
    """Where in `text` the first stop behind the first word begins."""
    start = len(text) - len(text.lstrip())
    places = [place for stop in stops if (place := text.find(stop, start)) >= 0]
    return min(places, default=None)


def _writer(
    form: Form | Callable[[Example, Any], str], tokenizer: Any, encoded: bool
) -> Callable[[Question, str], list[int]]:
    """A function from a question and as much of its text as is shown to the prompt's token ids.

    Templates bring their special tokens along; what is `encoded` gets those around every text.
    """

    def write(asked: Question, text: str) -> list[int]:
        if isinstance(form, Form):
            said = {"{instruction}": asked.instruction, "{question}": asked.asks, "{text}": text}
            prompt = PLACE.sub(lambda place: said[place[0]], form.prompt)
            return marked([prompt], tokenizer)[0] if encoded else plain_prompt(prompt, tokenizer)
        prompt = form(Example(asked.instruction, text, ""), tokenizer)
        return marked([prompt], tokenizer)[0] if encoded else tokenizer(prompt, add_special_tokens=False)["input_ids"]

    return write


def _fit(write: Callable[[str], list[int]], text: str, room: int | None) -> tuple[str, list[int]]:
    """As much of `text`, in whole words from its beginning, as gives at most `room` ids; with those ids.

    Where a text has no spaces between its words it is cut between characters.
    """
    ids = write(text)
    if room is None or len(ids) <= room or not text:
        return text, ids
    ends = [0, *ends_of_words(text)]
    low, high = 0, len(ends) - 1  # `low` words fit, `high` do not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if len(write(text[: ends[middle]])) <= room else (low, middle)
    return text[: ends[low]], write(text[: ends[low]])
