"""Every engine trains as DDP does, whatever the batch; its checkpoints resume, and its weights come out whole."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch.distributed.checkpoint import FileSystemReader

from kdray.artifacts.rows import Rows
from kdray.models.adapters import load_quantised, with_lora
from kdray.models.head import ResponseModel
from kdray.models.load import load_folder
from kdray.train.checkpoints import load_checkpoint, newest_checkpoint, save_checkpoint
from kdray.train.engines import Ranks
from kdray.train.loop import Loop
from tests.tiny import write_model, write_rows
from tests.train.test_loop import SETTINGS, Online

pytestmark = pytest.mark.slow
STEPS, BROKEN = 12, 5
ENGINES = {
    "ddp": {"name": "ddp", "params": {}},
    "fsdp": {"name": "fsdp", "params": {}},
    "zero1": {"name": "deepspeed", "params": {"stage": 1}},
    "zero2": {"name": "deepspeed", "params": {"stage": 2}},
    "zero3": {"name": "deepspeed", "params": {"stage": 3}},
    "zero3 offload": {"name": "deepspeed", "params": {"stage": 3, "offload": True}},
}
BATCHES = (4, 1, 3)
CASES = [
    (name, batch, "float32", True) for name in ENGINES for batch in BATCHES
]  # engine, sequences in a step, dtype, packing
CASES += [(name, 4, "bfloat16", True) for name in ("ddp", "fsdp", "zero2", "zero3")] + [("ddp", 3, "float32", False)]


LORA = ("ddp", "fsdp", "zero2", "zero3")
QLORA = ("ddp", "fsdp")  # ZeRO's own checks want floating-point weights


def make_loop(folder, engine, batch, ranks, dtype="float32", packing=True, lora=False, quantised=False):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, tokenizer = load_folder(folder / "student")
    if quantised:
        model = load_quantised(folder / "student", "cpu", torch.float32)
    rows = Rows(folder / "rows")
    teacher = Online(load_folder(folder / "teacher")[0], rows)
    settings = replace(SETTINGS, batch=batch, length=float(STEPS), dtype=dtype, packing=packing)
    if quantised:  # an export then has adapters alone
        settings = replace(settings, method="qlora", rank=4)
    return Loop(
        ResponseModel(with_lora(model, 4) if lora else model),
        rows,
        settings,
        signal=teacher,
        vocab_size=len(tokenizer),
        ranks=ranks,
        micro_batch=1,
        engine=ENGINES[engine],
    )


RESUMED = [(name, False) for name in ENGINES] + [(name, True) for name in LORA]


def kept(name, lora):
    return f"{name}-lora" if lora else name


def straight_name(name, lora):
    return kept(name, lora) if lora else label(name, 4)


def label(name, batch, dtype="float32", packing=True):
    return f"{name}-{batch}-{dtype}-{'packed' if packing else 'padded'}"


def result(loop):
    curve = [(metrics["loss"], metrics["grad_norm"]) for metrics in loop.steps()]
    return {"curve": curve, "heldout": loop.heldout(3), "weights": loop.engine.weights()}


def rank_process(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    os.environ["LOCAL_RANK"] = str(rank)  # as Ray Train sets it; DeepSpeed asks for it
    ranks = Ranks(rank, 2)
    for name, *case in CASES:
        batch, dtype, packing = case
        torch.save(
            result(make_loop(folder, name, batch, ranks, dtype, packing)),
            folder / f"{label(name, *case)}-rank{rank}.pt",
        )
    for name in LORA:
        torch.save(result(make_loop(folder, name, 4, ranks, lora=True)), folder / f"{name}-lora-rank{rank}.pt")
    for name in QLORA:
        loop = make_loop(folder, name, 4, ranks, lora=True, quantised=True)
        torch.save(result(loop), folder / f"{name}-qlora-rank{rank}.pt")
    for name, lora in RESUMED:
        broken = make_loop(folder, name, 4, ranks, lora=lora)
        for metrics in broken.steps():
            if metrics["step"] == BROKEN:
                break
        checkpoint = folder / kept(name, lora) / "attempt-001" / f"checkpoint-{BROKEN}"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(broken, checkpoint)
        resumed = make_loop(folder, name, 4, ranks, lora=lora)
        load_checkpoint(resumed, checkpoint)
        torch.save(result(resumed), folder / f"{kept(name, lora)}-resumed-rank{rank}.pt")
    dist.destroy_process_group()


def lone_process(_, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous-alone", rank=0, world_size=1)
    os.environ["LOCAL_RANK"] = "0"
    for name, lora in RESUMED:
        loop = make_loop(folder, name, 4, Ranks(), lora=lora)
        decay = [group["weight_decay"] for group in settings_of(loop)]
        load_checkpoint(loop, newest_checkpoint(folder / kept(name, lora), loop.engine.layout))
        assert loop.step == BROKEN
        assert [group["weight_decay"] for group in settings_of(loop)] == decay
        torch.save(result(loop), folder / f"{kept(name, lora)}-alone.pt")
    dist.destroy_process_group()


def settings_of(loop):
    """The groups of parameters of the optimiser, or of the one that DeepSpeed wraps."""
    engine = loop.engine
    return (
        engine.engine.optimizer.optimizer.param_groups if hasattr(engine, "engine") else engine.optimiser.param_groups
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    write_model(folder / "student", layers=2, seed=2)
    write_model(folder / "teacher", layers=2, seed=1)
    write_rows(folder / "rows", load_folder(folder / "student")[1], heldout=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONFAULTHANDLER", "1")  # a process that dies says where
        torch.multiprocessing.spawn(rank_process, (folder,), nprocs=2)
        torch.multiprocessing.spawn(lone_process, (folder,), nprocs=1)
    return folder


def read(folder, name):
    return [torch.load(folder / f"{name}-rank{rank}.pt") for rank in (0, 1)]


def assert_near(ours, theirs, tolerance):
    for (loss, norm), (expected_loss, expected_norm) in zip(ours["curve"], theirs["curve"], strict=True):
        assert loss == pytest.approx(expected_loss, rel=tolerance)
        assert norm == pytest.approx(expected_norm, rel=10 * tolerance)
    assert ours["heldout"] == pytest.approx(theirs["heldout"], rel=tolerance)
    assert set(ours["weights"]) == set(theirs["weights"])
    for name, weight in theirs["weights"].items():
        assert (ours["weights"][name].float() - weight.float()).abs().max() < tolerance, name


@pytest.mark.parametrize(("name", "batch", "dtype", "packing"), CASES)
def test_two_ranks_train_as_one_process_does(folder, name, batch, dtype, packing):
    alone = result(make_loop(folder, "ddp", batch, Ranks(), dtype, packing))
    first, second = read(folder, label(name, batch, dtype, packing))
    assert first["curve"] == second["curve"]
    assert_near(first, alone, 1e-4 if dtype == "float32" else 2e-2)
    if dtype == "bfloat16":
        assert {weight.dtype for weight in first["weights"].values()} == {torch.float32}, "master weights were rounded"


@pytest.mark.parametrize("name", QLORA)
def test_adapters_on_quantised_layers_train_alike_on_two_ranks(folder, name):
    alone = result(make_loop(folder, "ddp", 4, Ranks(), lora=True, quantised=True))
    first, second = read(folder, f"{name}-qlora")
    assert first["curve"] == second["curve"]
    assert_near(first, alone, 1e-4)


@pytest.mark.parametrize(("name", "lora"), RESUMED)
def test_a_resumed_run_is_the_straight_one(folder, name, lora):
    straight, resumed = read(folder, straight_name(name, lora))[0], read(folder, f"{kept(name, lora)}-resumed")[0]
    assert resumed["curve"] == straight["curve"][BROKEN:]
    for key, weight in straight["weights"].items():
        assert torch.equal(resumed["weights"][key], weight), key


@pytest.mark.parametrize(("name", "lora"), RESUMED)
def test_one_rank_goes_on_where_two_stopped(folder, name, lora):
    straight, alone = read(folder, straight_name(name, lora))[0], torch.load(folder / f"{kept(name, lora)}-alone.pt")
    assert_near(alone, straight | {"curve": straight["curve"][BROKEN:]}, 1e-4)
    assert not list(folder.rglob("*universal*")), "a copy of the checkpoint was left behind"


@pytest.mark.parametrize("lora", [False, True])
def test_shards_hold_every_trained_weight_once_and_no_frozen_one(folder, lora):
    checkpoint = newest_checkpoint(folder / kept("fsdp", lora), "fsdp")
    names = {
        name for name in FileSystemReader(checkpoint).read_metadata().state_dict_metadata if name.startswith("model.")
    }
    weights = read(folder, straight_name("fsdp", lora))[0]["weights"]
    assert names == {f"model.{name}" for name in weights if "lora_" in name or not lora}


def test_a_checkpoint_of_another_engine_is_not_taken(folder):
    assert newest_checkpoint(folder / "zero2", "deepspeed-2") is not None
    assert newest_checkpoint(folder / "zero2", "deepspeed-3") is None
    assert newest_checkpoint(folder / "zero2", "ddp") is None
