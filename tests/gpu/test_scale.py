"""A model of Qwen2.5-1.5B's shape: what its training takes of memory, beside the formula, and of time."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from benchmarks.worlds import SHAPES, make_model, make_rows
from kdray.cost.decoder import decoder_of
from kdray.cost.memory import Training, of_training
from kdray.models.adapters import narrow, with_lora
from kdray.models.compiled import compile_layers
from kdray.models.head import ResponseModel
from kdray.train.engines import Ranks
from kdray.train.loop import Loop
from tests.gpu import NEEDS_GPU
from tests.gpu.conftest import Figure
from tests.train.test_loop import SETTINGS

pytestmark = NEEDS_GPU
SHAPE, LAYERS, LENGTH = "qwen2.5-1.5b", 28, 512
PEAK = 989e12  # floating-point operations a second of an H100 or H200 SXM in dense bfloat16
SYNCHRONISATIONS = 9  # of a step: the masks' of packed rows, the sums, the norm


@pytest.fixture(scope="module", autouse=True)
def _one_rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    meeting = tmp_path_factory.mktemp("group") / "rendezvous"
    dist.init_process_group("nccl", init_method=f"file://{meeting}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def make_loop(folder: Path, batch: int, engine: str = "ddp", **changes: Any) -> Loop:
    """SFT in bfloat16 on rows of 512 tokens, half of them a response, or of fewer and fewer."""
    less = 3 if changes.pop("unequal", False) else 0
    rows = make_rows(folder / "rows", [(LENGTH // 2 - i * less, LENGTH // 2) for i in range(65)], 150_000)
    with torch.device("cuda"):
        model: Any = make_model(SHAPE, LAYERS)
    if changes.pop("checkpointing", False):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    settings = replace(SETTINGS, alpha=0.0, lr=1e-5, batch=batch, length=1000.0, dtype="bfloat16", **changes)
    if settings.rank is not None:
        model = with_lora(model, settings.rank).to("cuda")
        narrow(model, torch.bfloat16)
    loop = Loop(
        ResponseModel(model),
        rows,
        settings,
        signal=None,
        vocab_size=SHAPES[SHAPE][4],
        ranks=Ranks(),
        engine={"name": engine, "params": {}},
    )
    if settings.compile:
        compile_layers(model)
    return loop


CASES = {"plain": {}, "checkpointed": {"checkpointing": True}, "lora": {"method": "lora", "rank": 8}}


@pytest.mark.parametrize("name", CASES)
def test_training_takes_the_memory_that_the_formula_says(name: str, tmp_path: Path, figure: Figure) -> None:
    batch = 8
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loop = make_loop(tmp_path, batch, **CASES[name])
    for metrics in loop.steps():
        if metrics["step"] == 3:
            break
    peak = torch.cuda.max_memory_allocated() - before
    base = loop.model.whole.get_base_model() if name == "lora" else loop.model.whole
    shape = decoder_of(base.config.to_dict())
    assert shape
    how = Training(
        workers=1,
        engine="ddp",
        stage=0,
        bfloat16=True,
        checkpointing=name == "checkpointed",
        rank=8 if name == "lora" else None,
        quantised=False,
    )
    expected = of_training(shape, how, batch * LENGTH, batch * LENGTH / 2).total
    figure(f"1.5B {name} peak GB", peak / 1e9)
    figure(f"1.5B {name} peak over formula", peak / expected, at_least=0.85, at_most=1.1)


SPEEDS = {"ddp": {}, "fsdp": {}, "checkpointed": {"checkpointing": True}, "compiled": {"compile": True}}


@pytest.mark.parametrize("name", SPEEDS)
def test_a_step_keeps_the_gpu_at_work(name: str, tmp_path: Path, figure: Figure) -> None:
    """Model FLOPs as for PaLM: six a weight and token, the head's at response tokens alone, attention left out."""
    batch, rounds = 8, 10
    loop = make_loop(tmp_path, batch, "fsdp" if name == "fsdp" else "ddp", **SPEEDS[name])
    steps = loop.steps()
    for _ in range(4):
        next(steps)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(rounds):
        next(steps)
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - begin) / rounds
    shape = decoder_of(loop.model.whole.config.to_dict())
    assert shape
    flops = 6 * (shape.body + shape.embedding / 2) * batch * LENGTH
    figure(f"1.5B 8x512 {name} ms a step", seconds * 1e3)
    figure(f"1.5B 8x512 {name} tokens a second", batch * LENGTH / seconds)
    figure(f"1.5B 8x512 {name} MFU", flops / seconds / PEAK, at_least=0.3 if name == "compiled" else 0.1)


def test_a_step_waits_for_the_gpu_a_few_times_only(tmp_path: Path, figure: Figure) -> None:
    steps = make_loop(tmp_path, 8).steps()
    for _ in range(3):
        next(steps)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            next(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [f"{one.filename}:{one.lineno}" for one in caught if "synchroniz" in str(one.message)]
    print("\n".join(waits))
    figure("synchronisations a step", len(waits), at_most=SYNCHRONISATIONS)


def test_compiled_layers_take_the_same_steps_by_one_graph(tmp_path: Path, figure: Figure) -> None:
    """Every step is of another number of tokens."""
    rounds, losses = 8, {}
    for name in ("plain", "compiled"):
        loop = make_loop(tmp_path / name, 8, unequal=True, compile=name == "compiled")
        begin, steps, losses[name] = time.perf_counter(), loop.steps(), []
        for i in range(rounds):
            losses[name].append(next(steps)["loss"])
            if i == rounds // 2 - 1:
                torch.cuda.synchronize()
                figure(f"1.5B unequal rows, {name}: seconds of the first steps", time.perf_counter() - begin)
                begin = time.perf_counter()
        torch.cuda.synchronize()
        figure(f"1.5B unequal rows, {name}: ms a step", (time.perf_counter() - begin) / (rounds // 2) * 1e3)
        del loop, steps
        gc.collect()
        torch.cuda.empty_cache()
    worst = max(abs(a - b) / b for a, b in zip(losses["compiled"], losses["plain"], strict=True))
    figure("1.5B unequal rows: losses of compiled layers off", worst, at_most=5e-3)
    figure("graphs compiled", torch._dynamo.utils.counters["stats"]["unique_graphs"], at_most=4)
