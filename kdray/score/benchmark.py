"""A benchmark of lm-eval's: its requests cut into batches, and its scores from their answers.

lm-eval builds the requests from its own task files, and sums up through a model that answers from a table. What lies
between is ours: batches are cut from the whole list, so that any of them can be answered anywhere, at any time. By
the path `hflm` they are the very batches that lm-eval's `hf` model forms and answers, so that all numbers are those
of the `lm_eval` command; by `shared_prefix`, or under a decoding that contrasts layers, all choices of a question are
answered together.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import load_from_disk
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdray.models.head import ResponseModel
from kdray.models.likelihood import Continued, SharedPrefix
from kdray.score.calibration import Choice, calibration
from kdray.score.decodings import open_likelihoods
from kdray.score.labelled import LabelledTask, load_labelled
from kdray.score.lm_eval_models import Encoder, Table, as_lm_eval_takes, keep_to_window
from kdray.score.lm_eval_results import examples_of, scores_of
from kdray.score.spellings import ask_both_cases
from kdray.spec.errors import InputError
from kdray.spec.folders import is_encoder_decoder, read_config, window_in

Likelihood = Literal["hflm", "shared_prefix"]
ByQuestion = Callable[[Sequence[Continued]], list[list[tuple[float, bool]]]]
PARTS = 64  # about so many parts of a benchmark, each of whole batches
BOOTSTRAP = 1000  # draws for standard errors that have no formula


@dataclass(frozen=True)
class Setting:
    """What a benchmark's requests and batches depend on."""

    name: str
    folder: str | None  # of a task file that is not lm-eval's own
    shots: int | None  # None for the task's own number
    limit: int | None
    chat_template: bool
    tokenizer: str  # a folder with tokenizer and config.json
    batch: int
    likelihood: Likelihood
    chat: str = "{}"  # parameters of the template `chat`, as JSON
    examples: str | None = None  # a folder with solved examples, where they are not the task's own
    either_case: bool = False  # whether choices are letters that may be written small
    under: str | None = None  # a decoding by which choices are scored, not likelihood, as JSON: name and params


@functools.cache
def open_benchmark(setting: Setting) -> Benchmark:
    """The benchmark, built once in a process: that takes as long as lm-eval takes to write all prompts."""
    return Benchmark(setting)


class Benchmark:
    """All requests of a task or group, in lm-eval's order.

    Raises:
        InputError: lm-eval has no such task, it asks for something that is not supported, or its data lack right
            answers or examples.
    """

    def __init__(self, setting: Setting) -> None:
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        self.setting = setting
        random.seed(DEFAULT_RANDOM_SEED)  # as the command line does: some tasks shuffle their choices
        np.random.seed(DEFAULT_OTHER_SEED)
        self.loaded: Any = load_labelled(setting.name, setting.folder)
        make: Any = Encoder  # lm-eval registers its models through a decorator that hides their types
        encoder = make(setting.tokenizer, setting.name.removeprefix("kdray_"), json.loads(setting.chat))
        by_kind: dict[str, list[Any]] = defaultdict(list)
        for task in self.loaded["tasks"].values():
            _build(task, setting, encoder)
            for request in task.instances:
                by_kind[request.request_type] += [request] * (request.repeats or 1)
        if other := by_kind.keys() - {"loglikelihood", "generate_until"}:
            allowed = "log-likelihoods, multiple choice and generation are supported"
            raise InputError("score.tasks", f"'{setting.name}' asks for {', '.join(sorted(other))}", allowed)
        if setting.under and "generate_until" in by_kind:
            name = json.loads(setting.under)["name"]
            raise InputError(
                "score.choices",
                f"{name} of '{setting.name}', which lets models write",
                "score such tasks in a grid of their own",
            )
        self.kinds = {kind: len(requests) for kind, requests in by_kind.items()}
        self.requests = [request for requests in by_kind.values() for request in requests]
        config = read_config(Path(setting.tokenizer))
        self.known = config.get("vocab_size", math.inf)  # tokens
        self.encodes = is_encoder_decoder(config)  # the context, which the continuation is then not a part of
        self.errors: dict[int, str] = {}  # requests that no model of this window can answer
        self.truncated = 0  # requests that lose the beginning of their context
        # Context and answer of the requests that ask for a log-likelihood.
        self.tokens: dict[int, tuple[list[int], list[int]]] = {}
        self.batches = [batch for kind in by_kind for batch in self._batches(kind, encoder)]

    @property
    def parts(self) -> list[range]:
        """Runs of batches: what is answered at once and kept."""
        size = max(1, -(-len(self.batches) // PARTS))
        return [range(start, min(start + size, len(self.batches))) for start in range(0, len(self.batches), size)]

    def answer(
        self, part: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, shared: SharedPrefix | None = None
    ) -> list[dict[str, Any]]:
        """One row a request of a part: `loglikelihood` (nats) and `greedy`, or `text`; `error` where there is no
        answer.

        `shared`, of the same model, spares the path shared_prefix to look into it for every part.
        """
        setting = self.setting
        make: Any = HFLM  # its decorator hides its parameters
        lm = make(batch_size=setting.batch, **as_lm_eval_takes(model, tokenizer))
        keep_to_window(lm, window_in(model.config.to_dict()))
        by_question: ByQuestion | None = None
        if setting.under:
            by_question = self._under(model)
        elif setting.likelihood == "shared_prefix":
            by_question = shared or SharedPrefix(ResponseModel(model))
        rows = []
        for batch in [self.batches[i] for i in self.parts[part]]:
            requests = [self.requests[i] for i in batch]
            kind = requests[0].request_type
            apart = by_question if kind == "loglikelihood" else None
            answers = self._share(apart, batch) if apart else getattr(lm, kind)(requests, disable_tqdm=True)
            rows += [_row(i, answer) for i, answer in zip(batch, answers, strict=True)]
        return rows

    def scores(
        self, rows: Sequence[dict[str, Any]]
    ) -> tuple[dict[str, dict[str, float]], list[dict[str, Any]], dict[str, Any]]:
        """What lm-eval makes of the rows of all parts; questions with an error count nowhere.

        Returns:
            {metric: {value, stderr, n}}, accuracies in percent; one row a question; and what else is worth keeping:
            lm-eval's results as they are, the bins of the calibration error, and counts.

        Raises:
            RuntimeError: answers are missing, or none of them is any good.
        """
        errors = self.errors | {row["request"]: row["error"] for row in rows if row["error"]}
        given = {row["request"]: _answer(row) for row in rows if not row["error"]}
        if missing := len(self.requests) - len(given.keys() | errors.keys()):
            raise RuntimeError(f"{missing} of {len(self.requests)} answers are missing")
        if not given:
            raise RuntimeError(f"no question can be scored: {next(iter(errors.values()))}")
        for request in self.requests:
            request.resps.clear()
            request.filtered_resps.clear()
        table = Table([given.get(i) for i in range(len(self.requests))], self.kinds)
        found: Any = evaluate(lm=table, task_dict=self.loaded, limit=self.setting.limit, bootstrap_iters=BOOTSTRAP)
        wrong = {id(self.requests[i]): error for i, error in errors.items()}
        examples = []
        for task in self.loaded["tasks"].values():
            examples += examples_of(task, found["samples"][task.task_name], wrong, self.setting.either_case)
        scores = scores_of(found["results"][self._named()])
        details = {"results": found["results"], "versions": found["versions"], "truncated": self.truncated}
        details |= {"failed": sum(bool(row["error"]) for row in examples)}
        ours = {name: task for name, task in self.loaded["tasks"].items() if isinstance(task, LabelledTask)}
        left_out = {name: dict(sorted(task.left_out.items())) for name, task in ours.items()}
        details |= {"left_out": left_out, "unlabelled": sum(map(len, left_out.values()))}
        choices = [Choice(row["loglikelihoods"], row["gold"]) for row in examples if row["gold"] is not None]
        if choices:
            more, details["calibration"] = calibration(choices)
            scores |= more
        return scores, examples, details

    @property
    def _by_question(self) -> bool:
        """Whether all choices of a question are answered together, by us, and not one by one by lm-eval's own model."""
        return self.setting.under is not None or self.setting.likelihood == "shared_prefix"

    def _under(self, model: PreTrainedModel) -> ByQuestion:
        """What scores questions under the decoding that is set."""
        under = json.loads(self.setting.under or "")
        score = open_likelihoods(under["name"], under["params"])
        return lambda questions: [score(model, question.context, question.continuations) for question in questions]

    def _named(self) -> str:
        """The entry of lm-eval's results that is the benchmark's own."""
        groups, tasks = self.loaded.get("groups", {}), self.loaded["tasks"]
        return self.setting.name if self.setting.name in groups else next(iter(tasks))

    def _batches(self, kind: str, encoder: Any) -> Iterator[list[int]]:
        """The batches of all requests of a kind, by their numbers."""
        numbers = [i for i, request in enumerate(self.requests) if request.request_type == kind]
        if kind == "generate_until":
            yield from self._generation_batches(numbers, encoder)
            return
        numbers = [i for i in numbers if self._has_answer(i)]
        encoded = encoder.loglikelihood([self.requests[i] for i in numbers], disable_tqdm=True)
        window = encoder.max_length
        for i, (_, context, continuation) in zip(numbers, encoded, strict=True):
            if not 0 < len(continuation) <= window:
                self.errors[i] = f"an answer of {len(continuation)} tokens, and the model has positions for {window}"
                continue
            if self._has_unknown(i, context + continuation):
                continue
            if self.encodes:
                self.truncated += len(context) > window
                self.tokens[i] = context, continuation
                continue
            kept = (context + continuation)[-(window + 1) :]  # as lm-eval: what does not fit is cut off on the left
            self.truncated += len(kept) < len(context) + len(continuation)
            self.tokens[i] = kept[: -len(continuation)], continuation
            if not self._by_question:
                self.tokens[i] = context, continuation
        yield from self._shared_batches() if self._by_question else self._hflm_batches()

    def _has_unknown(self, number: int, ids: Sequence[int]) -> bool:
        """Whether one of a request's tokens is beyond the models' embedding."""
        if (token := max(ids, default=0)) >= self.known:
            self.errors[number] = f"token {token}, and the model has an embedding of {self.known}"
        return number in self.errors

    def _has_answer(self, number: int) -> bool:
        if not self.requests[number].args[1]:
            self.errors[number] = "an empty answer"
        return number not in self.errors

    def _hflm_batches(self) -> Iterator[list[int]]:
        """As HFLM forms them: requests that differ in their last token alone are one sequence, but for an encoder, the
        longest come first.
        """
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, (context, continuation) in self.tokens.items():
            groups[(i,) if self.encodes else tuple(context + continuation[:-1])].append(i)

        def order(members: list[int]) -> tuple[int, list[int]]:
            context, continuation = self.tokens[max(members, key=lambda i: len(self.tokens[i][1]))]
            return -len(context + continuation), context + continuation

        ordered = sorted(groups.values(), key=order)
        for start in range(0, len(ordered), self.setting.batch):
            yield [i for members in ordered[start : start + self.setting.batch] for i in members]

    def _shared_batches(self) -> Iterator[list[int]]:
        """Whole questions of about equal size, as many as have no more choices than a batch has sequences, but one at
        least.
        """
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, (context, _) in self.tokens.items():
            groups[tuple(context)].append(i)
        batch: list[int] = []
        for members in sorted(groups.values(), key=lambda members: (-self._question(members).size, members)):
            if batch and len(batch) + len(members) > self.setting.batch:
                yield batch
                batch = []
            batch += members
        if batch:
            yield batch

    def _question(self, members: Sequence[int]) -> Continued:
        return Continued(self.tokens[members[0]][0], [self.tokens[i][1] for i in members])

    def _share(self, shared: ByQuestion, batch: Sequence[int]) -> list[tuple[float, bool]]:
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i in batch:
            groups[tuple(self.tokens[i][0])].append(i)
        answers = shared([self._question(members) for members in groups.values()])
        return [answer for of_question in answers for answer in of_question]

    def _generation_batches(self, numbers: list[int], encoder: Any) -> Iterator[list[int]]:
        """As HFLM forms them: by the settings of generation, the longest prompts first."""
        groups: dict[str, list[int]] = defaultdict(list)
        for i in (i for i in numbers if not self._has_unknown(i, encoder.tok_encode(self.requests[i].args[0]))):
            groups[json.dumps(self.requests[i].args[1], sort_keys=True, default=str)].append(i)
        for members in groups.values():
            ordered = sorted(
                members, key=lambda i: (-len(encoder.tok_encode(self.requests[i].args[0])), self.requests[i].args[0])
            )
            yield from (
                ordered[start : start + self.setting.batch] for start in range(0, len(ordered), self.setting.batch)
            )


def _build(task: Any, setting: Setting, encoder: Any) -> None:
    """Let a task write its requests as `lm_eval` would have it, and never again: they are the same for every model."""
    own = task.get_config("num_fewshot")
    shots = (own or 0) if setting.shots is None or own == 0 else setting.shots
    task.set_config("num_fewshot", shots)
    if setting.examples and not isinstance(task, LabelledTask):
        raise InputError(
            "score.tasks", f"shots_source with '{setting.name}', which lm-eval writes in its own way", "leave it out"
        )
    if shots and isinstance(task, LabelledTask):
        pool: Any = load_from_disk(setting.examples) if setting.examples else None
        task.guard_examples(pool)
    if setting.either_case:
        ask_both_cases(task)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    task.build_all_requests(
        limit=setting.limit,
        apply_chat_template=setting.chat_template,
        fewshot_as_multiturn=setting.chat_template,
        chat_template=encoder.apply_chat_template if setting.chat_template else None,
        tokenizer_name=encoder.tokenizer_name if setting.chat_template else "",
    )
    task.build_all_requests = lambda **_: None
    task.process_results = functools.partial(_unless_failed, task.process_results)


def _unless_failed(process_results: Any, doc: Any, results: list[Any]) -> dict[str, Any]:
    """A question's metrics, none for one with a failed request: lm-eval then leaves it out of its means."""
    return {} if any(result is None for result in results) else process_results(doc, results)


def _row(request: int, answer: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"request": request, "loglikelihood": None, "greedy": None, "text": None, "error": ""}
    if isinstance(answer, str):
        return row | {"text": answer}
    if not math.isfinite(answer[0]):
        return row | {"error": f"a log-likelihood of {answer[0]}"}
    return row | {"loglikelihood": float(answer[0]), "greedy": bool(answer[1])}


def _answer(row: dict[str, Any]) -> Any:
    return row["text"] if row["text"] is not None else (row["loglikelihood"], row["greedy"])
