"""What scoring costs: Ray Data against a plain loop on the same rows, a shared context against lm-eval's own model.

    python -m benchmarks.score --model FOLDER --task NAME --data FILE [--questions 60] [--students 2] [--json]

FOLDER is a Hugging Face model, FILE the test set of a multiple-choice task of kdray's (arc_easy, hellaswag, ...). The
plain loop answers the same batches in this process, one model after another. Both are timed from the first answer to
the last score, without the start of Ray itself and with the loading of weights. With --json the last line is one
object: ray_data_over_plain_loop, shared_context_speedup, weight_loads_per_checkpoint.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kdray.models.head import ResponseModel
from kdray.models.likelihood import SharedPrefix
from kdray.models.load import load_folder
from kdray.orchestration.crew import Crew
from kdray.orchestration.measurer import BenchmarkPart, BenchmarkSum
from kdray.orchestration.pipeline import run_pipeline
from kdray.orchestration.pools import Item
from kdray.orchestration.resources import Resources
from kdray.orchestration.session import ray_session
from kdray.score.benchmark import Benchmark, Setting
from kdray.score.choices import lay_down_task
from kdray.scorer import Scorer
from kdray.spec import declare
from kdray.spec.components import bind
from kdray.spec.refs import parse_reference
from kdray.spec.sections.running import Runtime
from kdray.store import Outer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--task", default="hellaswag")
    parser.add_argument("--data", required=True, help="the task's test set: .jsonl, .json, .csv or .parquet")
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument(
        "--students", type=int, default=2, help="how often the model is scored, as if they were so many checkpoints"
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="kdray-score-"))
    params = bind(
        declare.Task, given.task, {"source": f"file:{Path(given.data).resolve()}", "limit": given.questions}, "task"
    )
    name = lay_down_task(
        given.task, params, parse_reference(params["source"]), Outer(folder / "store"), folder / "task"
    )
    setting = Setting(
        name, str(folder / "task"), 0, given.questions, False, str(given.model.resolve()), given.batch, "hflm"
    )
    students = [folder / f"student{i}" for i in range(given.students)]
    for student in students:
        shutil.copytree(given.model, student)

    plain_seconds, rows, speedup = plain_loop(setting, students)
    print(f"plain loop: {rows} requests in {plain_seconds:.1f} s, {rows / plain_seconds:.1f} a second")
    print(f"shared_prefix: {speedup:.2f} times as fast as hflm on the same questions")
    ray_seconds, loads = ray_data(setting, students, folder)
    print(
        f"Ray Data, one actor: {ray_seconds:.1f} s, {rows / ray_seconds:.1f} a second; weights loaded {len(loads)}"
        f" times, {loads} s"
    )
    if given.json:
        answer = {"ray_data_over_plain_loop": ray_seconds / plain_seconds, "shared_context_speedup": speedup}
        print(json.dumps(answer | {"weight_loads_per_checkpoint": len(loads) / len(students)}))
    shutil.rmtree(folder)


def plain_loop(setting: Setting, students: list[Path]) -> tuple[float, int, float]:
    """Seconds for all students by the path hflm, their requests, and how much faster the other path answers those of
    one.
    """
    benchmark, shared = Benchmark(setting), Benchmark(replace(setting, likelihood="shared_prefix"))
    started = time.perf_counter()
    for student in students:
        model, tokenizer = load_folder(student)
        benchmark.scores(
            [row for part in range(len(benchmark.parts)) for row in benchmark.answer(part, model, tokenizer)]
        )
    seconds = time.perf_counter() - started
    spent = {}
    for path in (benchmark, shared):  # processor time: what else runs on the machine shall not decide
        before = time.process_time()
        prefix = SharedPrefix(ResponseModel(model)) if path is shared else None
        for part in range(len(path.parts)):
            path.answer(part, model, tokenizer, prefix)
        spent[path.setting.likelihood] = time.process_time() - before
    return seconds, len(benchmark.requests) * len(students), spent["hflm"] / spent["shared_prefix"]


def ray_data(setting: Setting, students: list[Path], folder: Path) -> tuple[float, list[float]]:
    """Seconds that one actor takes for the same, from its first answer on, and the seconds of each load of weights."""
    count, groups = len(Benchmark(setting).parts), []
    for student in students:
        target = student / "scores"
        target.mkdir()
        asked: dict[str, Any] = {"key": student.name, "target": target, "model": student, "dtype": "float32"}
        asked |= {"task": "lm_eval:any", "setting": vars(setting)}
        groups.append([*(BenchmarkPart(**asked, index=i) for i in range(count)), BenchmarkSum(**asked)])
    with ray_session(Runtime(store=str(folder), device="cpu")) as resources:
        one, crew = Resources((replace(resources.nodes[0], cpus=1, gpus=0),), workers=1), Crew()
        started = time.perf_counter()
        list(run_pipeline([[Item(key="nothing")]], Idler, one, crew))  # an actor costs the same for whatever it does
        start = time.perf_counter() - started
        started = time.perf_counter()
        for key, error in run_pipeline(groups, functools.partial(Scorer, folder / "loads"), one, crew):
            assert not error, (key, error)
        seconds = time.perf_counter() - started
    print(f"an actor starts in {start:.1f} s")
    return seconds, [float(line) for line in (folder / "loads").read_text().splitlines()]


class Idler:
    def __call__(self, item: Item) -> None:
        pass


if __name__ == "__main__":
    main()
