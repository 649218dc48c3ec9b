"""measure: scores of a model on a task, from kept answers or from its log-likelihoods.

Every artifact holds `scores.json`, {metric: {value, stderr, n}}, and `examples.parquet`, one row an example; that of a
factual rate also `factual.json`, its companions and what it depends on. The requests of benchmarks are all built
before the first is answered, and answered in parts, which outlive a killed run.
"""

from __future__ import annotations

import functools
import json
import statistics
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.markup import escape

from kdray.artifacts.parts import carry_over, parts, write_part
from kdray.data.estimates import pooled_mean
from kdray.data.rows import Rows
from kdray.distill.labels import vocabulary
from kdray.distill.signals import open_signal
from kdray.distill.student import Student
from kdray.lens.factual import measured_rate
from kdray.models.head import ResponseModel
from kdray.models.likelihood import SharedPrefix
from kdray.models.load import Latest, load_placed, load_tokenizer, own_device
from kdray.orchestration.pipeline import Item, run_pipeline
from kdray.orchestration.work import Work
from kdray.plan import Step
from kdray.score.answers import Given, Metric, is_unfinished, load_metric, score_answers
from kdray.score.choices import lay_down_examples, lay_down_task, own_name, tokenizer_identity
from kdray.score.heldout import heldout_sums
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.errors import InputError
from kdray.spec.load import CALIBRATION
from kdray.stages.generate import read_answers
from kdray.store import Attempt, io

DECLARED = declare.Stage(version=2)
SCORES, EXAMPLES, FACTUAL = "scores.json", "examples.parquet", "factual.json"
DETAILS = "details.json"  # of a benchmark: lm-eval's results as they are, the bins of the calibration error
LOADS = "loads"
ANSWERS = pa.schema(
    [("request", pa.int64()), ("loglikelihood", pa.float64()), ("greedy", pa.bool_()), ("text", pa.string()), ("error", pa.string())]
)


def measure(steps: list[Step], work: Work) -> None:
    """Make the missing ones of `steps`, all of one model in a row."""
    while True:
        with work.claim(steps) as claimed:
            if not claimed:
                return
            scratch = work.store.root / "scratch" / f"tasks-{work.locks.owner}"
            groups, items_left = _groups(claimed, work, scratch), Counter[str]()
            for group in groups:
                items_left.update(item["key"] for item in group)
            by_id, errors = {step.key.id: (step, attempt) for step, attempt in claimed}, {}
            with work.progress.bar("measure", items_left.total(), "parts") as bar:
                for key, error in run_pipeline(groups, functools.partial(Measurer, scratch / LOADS), work.resources):
                    errors |= {key: error} if error and key not in errors else {}
                    items_left[key] -= 1
                    bar.advance()
                    if not items_left[key]:
                        _finish(*by_id[key], errors.get(key), work)
            _say_loads(scratch / LOADS, len({step.inputs["model"].id for step, _ in claimed if "model" in step.inputs}), work)
            io.delete(scratch)


def _finish(step: Step, attempt: Attempt, error: str | None, work: Work) -> None:
    if error:
        work.fail(step, error)
        return
    facts = io.read_json(attempt.path / DETAILS) or {}
    kept = [attempt.path / name for name in (SCORES, EXAMPLES, DETAILS, FACTUAL) if (attempt.path / name).is_file()]
    work.seal(step, attempt, kept, **{name: facts[name] for name in ("failed", "unlabelled", "truncated") if name in facts})
    if facts.get("failed"):
        work.progress.say(f"[yellow]{step.slug}[/]: {facts['failed']} questions could not be scored; the column `error` says why")
    if facts.get("unlabelled"):
        reason = next(reason for rows in facts["left_out"].values() for reason in rows.values())
        work.progress.say(
            f"[yellow]{step.slug}[/]: {facts['unlabelled']} rows without a right answer that can be asked are left out; "
            f"{DETAILS} names them (the first: {escape(reason)})"
        )
    if facts.get("truncated"):
        work.progress.say(
            f"[yellow]{step.slug}[/]: {facts['truncated']} requests were cut to the model's window, on the left as lm-eval does"
        )
    work.after()


def _groups(claimed: list[tuple[Step, Attempt]], work: Work, scratch: Path) -> list[list[Item]]:
    """All items, in groups that one actor does: those of a model or, with more actors than models, of one of its tasks."""
    parts = _collect([step for step, _ in claimed if _kind(step) == "choices"], work, scratch)
    spread = len({_model(step, work) for step, _ in claimed}) < work.resources.actors()
    groups: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for step, attempt in claimed:
        if step.key.id not in work.failed:
            gpus = work.gpus_for(step.inputs["model"], step.params["dtype"]) if "model" in step.inputs else 1
            items = [item | {"gpus": gpus} for item in _items(step, attempt, work, parts)]
            groups[_model(step, work), step.key.id if spread else ""] += items
    return list(groups.values())


def _collect(steps: list[Step], work: Work, scratch: Path) -> dict[str, tuple[dict[str, Any], int]]:
    """By step: its benchmark, and in how many parts its requests are answered. Each benchmark is built once, in a Ray task.

    A step whose benchmark cannot be built fails; the others go on.
    """
    import ray
    from ray.exceptions import RayTaskError

    tokenizers: dict[str, str] = {}  # a folder for each tokenizer: models with equal ones share their benchmarks
    settings: dict[str, dict[str, Any]] = {}
    for step in steps:
        try:
            settings[step.key.id] = _setting(step, work, scratch, tokenizers)
        except InputError as error:
            work.fail(step, str(error))
    build = ray.remote(_count_parts).options(num_cpus=1)
    counts = {key: build.remote(setting) for key, setting in {json.dumps(s): s for s in settings.values()}.items()}
    found = {}
    for step in steps:
        if (setting := settings.get(step.key.id)) is None:
            continue
        try:
            found[step.key.id] = setting, ray.get(counts[json.dumps(setting)])
        except RayTaskError as error:
            work.fail(step, str(error.cause))
    return found


def _count_parts(setting: dict[str, Any]) -> int:
    """How many parts a benchmark has.

    Raises:
        InputError: its requests cannot be built from the data.
    """
    from kdray.score.benchmark import Setting, open_benchmark

    try:
        return len(open_benchmark(Setting(**setting)).parts)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - a missing column, a file that cannot be read: whatever lm-eval or datasets make of it
        reason = (str(error).splitlines() or [""])[0]
        task = setting["name"].removeprefix("kdray_")
        raise InputError(f"score.tasks.{task}", f"no requests ({type(error).__name__}: {reason})", "check its source") from None


def _setting(step: Step, work: Work, scratch: Path, tokenizers: dict[str, str]) -> dict[str, Any]:
    """The fields of a benchmark's `Setting`."""
    task, model = step.params["task"], work.folder(step.inputs["model"])
    folder, name = scratch / task["name"].replace(":", "-"), task["name"].partition(":")[2]
    if step.source is not None:
        if not (folder / "task.yaml").is_file():
            lay_down_task(task["name"], task["params"], step.source, work.outer, folder, task["source"])
        name = own_name(task["name"])
    examples = folder / "examples" if "shots_source" in step.files else None
    if examples and not examples.is_dir():
        lay_down_examples(task["name"], task["params"], step.files["shots_source"], work.outer, folder)
    tokenizer = tokenizers.setdefault(tokenizer_identity(model), str(model))
    fields = {key: task["params"][key] for key in ("shots", "limit", "chat_template")}
    fields |= {"chat": json.dumps(step.params["template"]["params"])} if "template" in step.params else {}
    fields |= {"batch": step.params["batch"], "likelihood": step.params["likelihood"], "tokenizer": tokenizer}
    fields |= {"name": name, "folder": str(folder) if step.source is not None else None}
    return fields | {"examples": examples and str(examples)}


def _say_loads(log: Path, models: int, work: Work) -> None:
    """One line on how often weights were read, which is once a model where there are at least as many models as actors."""
    if log.is_file():
        seconds = [float(line) for line in log.read_text().splitlines()]
        models_read, times = f"{models} model{'s' * (models != 1)}", f"{len(seconds)} time{'s' * (len(seconds) != 1)}"
        work.progress.say(f"measure: {models_read}, weights loaded {times} in {statistics.fmean(seconds):.1f} s each")


@dataclass(frozen=True)
class _Loaded:
    """A model as it was read, and what is found out about it once."""

    model: Any
    tokenizer: Any

    @functools.cached_property
    def shared(self) -> SharedPrefix:
        return SharedPrefix(ResponseModel(self.model))


class Measurer:
    """Does one measurement, or one part of it; keeps the model it loaded last. `loads` gets a line a load: its seconds."""

    def __init__(self, loads: Path) -> None:
        self.device = own_device()
        self.loads, self.load = loads, Latest(self._load)
        self._metric = functools.lru_cache(maxsize=4)(self._load_metric)

    def __call__(self, item: Item) -> None:
        if item["kind"] == "part":
            self._part(item)
            return
        scores, rows = getattr(self, f"_{item['kind']}")(item)
        target = Path(item["target"])
        names = dict.fromkeys(name for row in rows for name in row)  # a question that failed has fewer
        pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows]), target / EXAMPLES)
        io.put_json(target / SCORES, scores)

    def _load(self, folder: Path, dtype: str) -> _Loaded:
        started = time.monotonic()
        loaded = _Loaded(*load_placed(folder, getattr(torch, dtype)))
        self.loads.parent.mkdir(parents=True, exist_ok=True)
        with self.loads.open("a") as log:
            log.write(f"{time.monotonic() - started:.2f}\n")
        return loaded

    def _model(self, item: Item) -> _Loaded:
        return self.load(Path(item["model"]), item["dtype"])

    def _part(self, item: Item) -> None:
        """Answer some of a benchmark's requests and keep the answers; not again where a killed actor had done so."""
        target, index = Path(item["target"]), item["index"]
        if index not in parts(target):
            benchmark, loaded = _benchmark(item), self._model(item)
            shared = loaded.shared if benchmark.setting.likelihood == "shared_prefix" else None
            rows = benchmark.answer(index, loaded.model, loaded.tokenizer, shared)
            write_part(target, index, ".parquet", lambda path: pq.write_table(pa.Table.from_pylist(rows, ANSWERS), path))

    def _choices(self, item: Item) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Sum up a benchmark's answers, once all of them are there."""
        target = Path(item["target"])
        answers = [row for path in parts(target).values() for row in pq.read_table(path).to_pylist()]
        scores, rows, details = _benchmark(item).scores(answers)
        io.put_json(target / DETAILS, details)
        shown = [*declared(declare.Task, item["task"]).short, *CALIBRATION]
        return {name: score for name, score in scores.items() if ":" in item["task"] or name in shown}, rows

    def _heldout(self, item: Item) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        loaded = self._model(item)
        data = Rows(Path(item["data"]))
        scored, rows = ResponseModel(loaded.model), []
        signal = open_signal(item["soft_labels"], data, scored.device, getattr(torch, item["dtype"]))
        size = vocabulary(len(loaded.tokenizer), scored.head, signal)
        for row in data.heldout[: item["params"]["limit"]].tolist():
            ce, kl, tokens = heldout_sums(Student(scored), data, [[row]], signal, size, scored.device).tolist()
            rows.append({"example": row, "tokens": int(tokens), "ce": ce / tokens, "kl": kl / tokens})
        metrics = ["ce", "kl"] if signal else ["ce"]
        counts = [row["tokens"] for row in rows]
        return {metric: pooled_mean([row[metric] for row in rows], counts) for metric in metrics}, rows

    def _factual(self, item: Item) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        loaded = self._model(item)
        answers = read_answers(Path(item["outputs"]), lambda: loaded.tokenizer)
        result = measured_rate(loaded.model, loaded.tokenizer, answers, Path(item["lens"]))
        io.put_json(Path(item["target"]) / FACTUAL, result.facts)
        return dict(result.scores), [dict(row) for row in result.rows]

    def _answers(self, item: Item) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        metrics = [self._metric(json.dumps(metric), item["cache"]) for metric in item["metrics"]]
        tokenizer = functools.cache(lambda: load_tokenizer(Path(item["answerer"])))
        rows = read_answers(Path(item["outputs"]), tokenizer)
        for drawn in item["samples"]:
            for row, sample in zip(rows, read_answers(Path(drawn), tokenizer), strict=True):
                row.setdefault("samples", []).extend([] if sample["error"] or is_unfinished(sample) else [sample["answer"]])
        return score_answers(rows, metrics, count_empty=item["count_empty"])

    def _load_metric(self, metric: str, cache: str) -> Metric:
        """A metric of one step, kept for the next ones: those of a metric with a model follow each other."""
        use = json.loads(metric)
        given = Given({name: Path(folder) for name, folder in use["models"].items()}, self.device, Path(cache))
        return load_metric(use["name"], use["params"], given)


def _model(step: Step, work: Work) -> str:
    """What the steps of one group share, so that it is loaded once: the model that scores, or else the answers."""
    scoring = [needed for name, needed in step.inputs.items() if name == "model" or ".model" in name]
    return str(work.folder(scoring[0] if scoring else step.inputs["outputs"]))


def _answers(step: Step, work: Work) -> Item:
    """What the metrics of kept answers need; the parameters that change no number come from the grid as it is now."""
    now = {use.name: use.params for use in work.plan.grid.score.metrics}
    metrics = []
    for metric in step.params["metrics"]:
        name = metric["name"]
        runtime = declared(declare.Metric, name).runtime
        folders = {key.partition(".")[2]: str(work.folder(made)) for key, made in step.inputs.items() if key.startswith(f"{name}.")}
        params = metric["params"] | {key: value for key, value in now.get(name, {}).items() if key in runtime}
        metrics.append({"name": name, "params": params, "models": folders})
    return {
        "outputs": str(work.folder(step.inputs["outputs"])),
        "answerer": str(work.folder(step.inputs["outputs"].inputs["model"])),
        "samples": [str(work.folder(drawn)) for key, drawn in step.inputs.items() if key.startswith("samples.")],
        "metrics": metrics,
        "count_empty": not any(declared(declare.Metric, metric["name"]).slow for metric in metrics),
        "cache": str(work.store.root / "cache"),
    }


def _kind(step: Step) -> str:
    """How a step measures: the `factual` rate or `answers` of what is kept, or as its task says."""
    if "lens" in step.inputs:
        return "factual"
    if "outputs" in step.inputs:
        return "answers"
    return "heldout" if isinstance(declared(declare.Task, step.params["task"]["name"]), declare.HeldoutTask) else "choices"


def _items(step: Step, attempt: Attempt, work: Work, benchmarks: dict[str, tuple[dict[str, Any], int]]) -> list[Item]:
    """A step's items: one, or where it has many requests one for each part that no attempt left, and one that sums up."""
    item: Item = {"key": step.key.id, "kind": _kind(step), "target": str(attempt.path)}
    if item["kind"] == "answers":
        return [item | _answers(step, work)]
    if item["kind"] == "factual":
        folders = {name: str(work.folder(needed)) for name, needed in step.inputs.items()}
        return [item | folders | {"dtype": step.params["dtype"]}]
    task = step.params["task"]
    item |= {"task": task["name"], "params": task["params"], "dtype": step.params["dtype"], "model": _model(step, work)}
    if item["kind"] == "heldout":
        labels = [vars(source) for source in work.soft_labels(step)]
        return [item | {"data": str(work.folder(step.inputs["data"])), "soft_labels": labels}]
    setting, count = benchmarks[step.key.id]
    item |= {"benchmark": setting}
    present = carry_over(attempt)
    return [*(item | {"kind": "part", "index": i} for i in range(count) if i not in present), item]


def _benchmark(item: Item) -> Any:
    # Imported where it is used: lm-eval takes seconds to load, and measurements of kept answers do without it.
    from kdray.score.benchmark import Setting, open_benchmark

    return open_benchmark(Setting(**item["benchmark"]))
