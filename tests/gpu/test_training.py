"""Training: every engine's steps, memory, resuming, exports and adapters."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from kdray.artifacts.rows import Rows
from kdray.distill.signals.online import OnlineTeacher
from kdray.models.adapters import load_quantised, merged, narrow, with_lora
from kdray.models.head import ResponseModel
from kdray.models.load import load_folder, save
from kdray.train.checkpoints import Writer, load_checkpoint, save_checkpoint
from kdray.train.engines import Ranks
from kdray.train.loop import Loop
from tests.gpu import NEEDS_GPU
from tests.gpu.conftest import Figure
from tests.tiny import write_model, write_rows
from tests.train.test_loop import SETTINGS

pytestmark = NEEDS_GPU
STEPS = 20
SETTING = replace(SETTINGS, lr=3e-4, length=float(STEPS), dtype="bfloat16")
NAMES = ("plain", "ddp", "fsdp", "fsdp checkpointed", "fsdp micro", "zero2", "zero3")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student and a teacher with heads of 64, which the kernel of packed rows takes, and rows."""
    folder = tmp_path_factory.mktemp("world")
    for name, layers, seed in (("student", 2, 2), ("teacher", 3, 1)):
        model, tokenizer = load_folder(write_model(folder / name, layers=layers, hidden=256, seed=seed))
        for weight in model.parameters():  # as wide models are begun with: rounding grows no faster than theirs
            weight.data.mul_(0.2 if weight.ndim > 1 else 1.0)
        save(model, tokenizer, folder / name)
    write_rows(folder / "rows", load_folder(folder / "student")[1])
    return folder


@pytest.fixture(scope="module", autouse=True)
def _one_rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A group of one process: two cannot share a GPU under NCCL."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_RANK", "0")
        meeting = tmp_path_factory.mktemp("group") / "rendezvous"
        dist.init_process_group("nccl", init_method=f"file://{meeting}", rank=0, world_size=1)
        yield
        dist.destroy_process_group()


def make_loop(world: Path, name: str = "plain", settings: Any = SETTING, device: str = "cuda") -> Loop:
    """A loop of this name; adapters as `settings` have them."""
    torch.manual_seed(0)
    model: Any
    model, tokenizer = load_folder(world / "student", device=device)
    engine = {"fsdp": ("fsdp", {}), "zero2": ("deepspeed", {"stage": 2}), "zero3": ("deepspeed", {"stage": 3})}
    kind, params = engine.get(name.split()[0], ("ddp", {}))
    if kind == "deepspeed":
        pytest.importorskip("deepspeed")
    if settings.method == "qlora":
        pytest.importorskip("bitsandbytes")
        if kind == "fsdp" and torch.__version__ < "2.12":
            pytest.skip("FSDP2 of this torch shards no integers, which quantised weights are")
        model = load_quantised(world / "student", device, torch.bfloat16)
    if settings.rank is not None:
        model = with_lora(model, settings.rank, settings.seed).to(device)
    if settings.method == "lora" and kind == "ddp":
        narrow(model, torch.bfloat16)
    if "checkpointed" in name:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    rows = Rows(world / "rows")
    teacher = ResponseModel(load_folder(world / "teacher", device=device)[0])
    loop = Loop(
        ResponseModel(model),
        rows,
        settings,
        signal=OnlineTeacher(teacher, rows, torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32),
        vocab_size=len(tokenizer),
        ranks=Ranks(),
        micro_batch=1 if "micro" in name else None,
        engine={"name": kind, "params": params},
    )
    if name == "ddp":  # which several workers alone are wrapped in
        loop.engine._replica = DistributedDataParallel(loop.engine.student, gradient_as_bucket_view=True)
    return loop


def losses(loop: Loop) -> torch.Tensor:
    return torch.tensor([metrics["loss"] for metrics in loop.steps()])


def off(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float(((ours - theirs).abs() / theirs.abs()).max())


@pytest.fixture(scope="module")
def plain(world: Path) -> torch.Tensor:
    return losses(make_loop(world))


def test_float32_trains_as_a_cpu_does(world: Path, figure: Figure) -> None:
    settings = replace(SETTING, dtype="float32")
    on_cpu = losses(make_loop(world, settings=settings, device="cpu"))
    assert on_cpu[-1] < on_cpu[0]
    figure(
        "fp32 losses of 20 steps off a CPU's", off(losses(make_loop(world, settings=settings)), on_cpu), at_most=1e-4
    )


def test_bfloat16_trains_as_float32_does(world: Path, plain: torch.Tensor, figure: Figure) -> None:
    exact = losses(make_loop(world, settings=replace(SETTING, dtype="float32")))
    figure("bf16 losses of 20 steps off fp32's", off(plain, exact), at_most=2e-2)


@pytest.mark.parametrize("name", NAMES)
def test_every_engine_takes_the_same_steps(world: Path, plain: torch.Tensor, name: str, figure: Figure) -> None:
    figure(f"{name} losses of 20 steps off", off(losses(make_loop(world, name)), plain), at_most=2e-3)


def test_padded_rows_train_as_packed_ones(world: Path, plain: torch.Tensor, figure: Figure) -> None:
    padded = losses(make_loop(world, settings=replace(SETTING, packing=False)))
    figure("padded losses of 20 steps off packed", off(padded, plain), at_most=5e-3)


@pytest.mark.parametrize("name", ["plain", "fsdp", "zero2", "zero3"])
def test_a_resumed_run_goes_on_as_the_straight_one(world: Path, name: str, tmp_path: Path, figure: Figure) -> None:
    straight, broken = losses(make_loop(world, name)), make_loop(world, name)
    for metrics in broken.steps():
        if metrics["step"] == STEPS // 2:
            break
    save_checkpoint(broken, tmp_path / "checkpoint")
    del broken
    gc.collect()
    resumed = make_loop(world, name)
    load_checkpoint(resumed, tmp_path / "checkpoint")
    figure(f"{name} resumed losses off", off(losses(resumed), straight[STEPS // 2 :]), at_most=1e-3)


@pytest.mark.parametrize("name", ["plain", "fsdp", "zero3"])
def test_an_export_answers_as_the_trained_model(world: Path, name: str, tmp_path: Path, figure: Figure) -> None:
    loop = make_loop(world, name)
    losses(loop)
    tokenizer, weights = load_folder(world / "student")[1], loop.engine.weights()
    save(loop.model.whole, tokenizer, tmp_path / "export", weights)
    again, _ = load_folder(tmp_path / "export")
    plain_one, _ = load_folder(world / "student")
    plain_one.load_state_dict({key: value.float() for key, value in weights.items()}, strict=False)  # a tied head
    ids = torch.tensor([loop.rows.input_ids(0)])
    with torch.no_grad():
        figure(f"{name} exported logits off", float((again(ids).logits - plain_one(ids).logits).abs().max()), at_most=0)


@pytest.mark.parametrize("name", ["plain", "fsdp"])
def test_an_export_is_of_its_step_whatever_steps_are_taken_while_it_is_written(world: Path, name: str) -> None:
    loop, found, go = make_loop(world, name), dict[str, torch.Tensor](), threading.Event()
    writer, steps = Writer(loop, beside=True), loop.steps()
    next(steps)
    then = {key: value.to("cpu", copy=True) for key, value in loop.engine.weights().items()}
    writer.export(lambda weights: lambda: found.update(weights) if go.wait(60) else None)
    list(steps)
    go.set()
    writer.finish()
    assert found.keys() == then.keys()
    assert all(torch.equal(found[key], then[key]) for key in then), "also that they are in main memory"


LORA = replace(SETTING, method="lora", rank=8, lr=3e-3)


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_adapters_train_alike_under_every_engine(world: Path, method: str, figure: Figure) -> None:
    settings = replace(LORA, method=method)
    loop = make_loop(world, settings=settings)
    ours = losses(loop)
    assert ours[-1] < 0.98 * ours[0]
    shared = make_loop(world, "fsdp", settings)
    figure(f"{method} losses under fsdp off ddp's", off(losses(shared), ours), at_most=5e-3)
    rows = loop.rows.heldout.tolist()
    for name, one in (("ddp", loop), ("fsdp", shared)):
        model = merged(world / "student", 8, one.engine.weights()).to("cuda")
        ids = torch.tensor([loop.rows.input_ids(rows[0])], device="cuda")
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            expected, found = loop.model.whole.eval()(ids).logits.float(), model(ids).logits.float()
        limit = 5e-2 if method == "lora" else 0.5  # the kept model is that of the weights before they were quantised
        figure(
            f"{method} merged under {name} logits off",
            float((found - expected).norm() / expected.norm()),
            at_most=limit,
        )
