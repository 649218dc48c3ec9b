"""lm-eval's tasks, asking only what can be asked and has a right answer.

lm-eval itself stops at a row without a label, or counts whatever a model answers there as wrong. Here such a row is
left out and counted, and takes no other with it: of whole data, all requests are lm-eval's own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
from datasets import Dataset, Value
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from lm_eval.tasks._factory import TaskFactory
from lm_eval.tasks._index import Entry, Kind

from kdray.score.documents import fault, said
from kdray.score.shots import Examples
from kdray.spec.errors import InputError

RIGHT_ANSWERS = "check its columns, and give rows with right answers"
Split = tuple[list[int], dict[int, str]]  # of a table: the rows that a task's function takes, and why not the others


class LabelledTask(ConfigurableTask):
    """A task whose documents are those that can be asked; each keeps its number among the rows.

    Raises:
        InputError: there is none.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.left_out: dict[int, str] = {}  # why documents looked at so far are left out, by number
        self._good: dict[int, bool] = {}
        self._taken: dict[str, Split] = {}
        self._ready = False
        config = {name: value for name, value in config.items() if name != "class"}
        self._field = f"score.tasks.{config['task'].removeprefix('kdray_')}"
        if process := config.get("process_docs"):
            config["process_docs"] = _of_good_rows(process, self._taken)
        try:
            super().__init__(config=config)
        except NoRows as error:
            raise InputError(f"{self._field}.source", str(error), RIGHT_ANSWERS) from None
        self._ready = True

    @property
    def eval_docs(self) -> Any:
        """All documents; while the task is built those from the first good one on, since lm-eval tries out what comes
        first.
        """
        docs: Any = super().eval_docs
        if self._ready:
            return docs
        self.features = list(docs.features)
        for i, (number, doc) in enumerate(self._numbered(docs)):
            if self._is_good(number, doc):
                return docs.select(range(i, len(docs)))
        rows = len(self.left_out) or len(docs)
        reason = next(iter(self.left_out.values()), "it is empty")
        raise NoRows(f"none of {rows} rows can be asked ({reason})")

    def doc_iterator(
        self, *, rank: int = 0, limit: int | None = None, world_size: int = 1, samples: Any = None
    ) -> Iterator[tuple[int, Any]]:
        """The first `limit` good documents, with their numbers."""
        assert (rank, world_size, samples) == (0, 1, None), (
            "requests are written in one process, and shared out as batches"
        )
        count = 0
        for number, doc in self._numbered(self.eval_docs):
            if count == limit:
                return
            if self._is_good(number, doc):
                count += 1
                yield number, doc

    def fewshot_context(self, doc: dict[str, Any], num_fewshot: int, **rest: Any) -> Any:  # type: ignore[override]
        if isinstance(self.sampler, Examples):
            self.sampler.asked = doc
        return super().fewshot_context(doc, num_fewshot=num_fewshot, **rest)

    def guard_examples(self, pool: Dataset | None) -> None:
        """Keep each question out of its own solved examples, which come from `pool` or else from where lm-eval takes
        them.

        Raises:
            InputError: `pool` has no rows for this task.
        """
        if pool is not None:
            pool, process = _whole_numbers(pool), self.fewshot_cfg.process_docs
            try:
                docs: Any = process(pool) if process else pool
                self.sampler.replace_df(list(docs))
            except NoRows as error:
                raise InputError(f"{self._field}.shots_source", str(error), RIGHT_ANSWERS) from None
        own = pool is not None or self._source_of_examples() == (self.config.test_split or self.config.validation_split)
        self.sampler = Examples(self, self.sampler, own, self._field)  # type: ignore[assignment]

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().download(dataset_kwargs, **kwargs)
        if self.fewshot_cfg.split is not None and self.fewshot_cfg.split not in self.dataset:
            self.fewshot_cfg.split = None  # a split of the official data, and these are others
        if self.config.dataset_path in ("csv", "parquet"):
            self.dataset = {split: _whole_numbers(docs) for split, docs in self.dataset.items()}

    def _source_of_examples(self) -> str | None:
        """The split that lm-eval takes solved examples from; None for those that the task brings along."""
        config, shown = self.config, self.fewshot_cfg
        if shown.split is None and shown.samples is not None:
            return None
        return shown.split or config.training_split or config.validation_split or config.test_split

    def _numbered(self, docs: Any) -> Iterator[tuple[int, Any]]:
        """The documents and the numbers of their rows, or where rows and documents are not one to one their own."""
        rows = self.dataset[self.config.test_split or self.config.validation_split]
        taken, refused = self._taken.get(rows._fingerprint, (range(len(rows)), {}))
        self.left_out |= refused
        yield from zip(taken if len(taken) == len(docs) else range(len(docs)), docs, strict=True)

    def _is_good(self, number: int, doc: dict[str, Any]) -> bool:
        if number not in self._good:
            reason = fault(self, doc)
            self.left_out |= {number: reason} if reason else {}
            self._good[number] = not reason
        return self._good[number]


def load_labelled(name: str, folder: str | None) -> Any:
    """What lm-eval's `TaskManager.load` gives for a task or group, from its own files or those in `folder`.

    Raises:
        InputError: there is no such task, or one has no row that can be asked.
    """
    manager = TaskManager(include_path=folder, include_defaults=False) if folder else TaskManager()
    if name not in manager.all_groups + manager.all_subtasks:
        raise InputError("score.tasks", f"lm-eval has no task or group '{name}'", "`lm_eval ls tasks` lists them")
    manager._factory = _Factory(meta=manager.metadata)
    return manager.load([name])


class _Factory(TaskFactory):
    """Makes a `LabelledTask` of every task file that names no class of its own."""

    def _load_full_config(self, entry: Entry, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
        config = super()._load_full_config(entry, overrides)
        return config if entry.kind is Kind.GROUP else {"class": LabelledTask} | config


class NoRows(Exception):
    """A table has no row that can be asked."""


def _of_good_rows(process: Callable[[Any], Any], taken: dict[str, Split]) -> Callable[[Any], Any]:
    """A task's `process_docs`, for the rows that it takes.

    Where that is not all, `taken` says which, by the table's fingerprint.
    """

    @functools.wraps(process)
    def process_docs(docs: Any) -> Any:
        if docs._fingerprint not in taken:
            try:
                return process(docs)
            except Exception:  # noqa: BLE001 - as in `fault`
                refused: dict[int, str] = {}
                taken[docs._fingerprint] = list(_processable(process, docs, 0, len(docs), refused)), refused
        good, refused = taken[docs._fingerprint]
        if not good:
            raise NoRows(f"none of {len(docs)} rows can be asked ({refused[0]})")
        return process(docs.select(good))

    return process_docs


def _processable(
    process: Callable[[Any], Any], docs: Dataset, start: int, end: int, refused: dict[int, str]
) -> Iterator[int]:
    """The numbers of the rows that `process` takes: a stretch on which it fails is halved until it is one row."""
    try:
        process(Dataset.from_dict(docs[start:end], features=docs.features))
        yield from range(start, end)
    except Exception as error:  # noqa: BLE001 - as in `fault`
        if end - start == 1:
            refused[start] = said(error)
            return
        middle = (start + end) // 2
        yield from _processable(process, docs, start, middle, refused)
        yield from _processable(process, docs, middle, end, refused)


def _whole_numbers(docs: Dataset) -> Dataset:
    """Columns of whole numbers with gaps as such: a table that went through pandas has them as floats, and a label 1.0
    is no choice.
    """
    for name, column in zip(docs.column_names, docs.data.columns, strict=True):
        if pa.types.is_floating(column.type) and column.null_count:
            values = column.drop_null().to_numpy()
            docs = docs.cast_column(name, Value("int64")) if (values == values.round()).all() else docs
    return docs
