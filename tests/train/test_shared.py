"""What two ranks send, hold and do each for themselves: memory and time of a GPU, counted with gloo on a CPU."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from kdray.artifacts.rows import Rows
from kdray.models.adapters import with_lora
from kdray.models.head import ResponseModel
from kdray.models.load import load_folder
from kdray.train import checkpoints
from kdray.train.checkpoints import Writer, load_checkpoint, newest_checkpoint, save_checkpoint
from kdray.train.engines import Ranks
from kdray.train.loop import Loop
from tests.tiny import write_model, write_rows
from tests.train.test_loop import SETTINGS

pytestmark = pytest.mark.slow
FSDP, ONCE = {"name": "fsdp", "params": {}}, {"name": "fsdp", "params": {"sum_once": True}}
ENGINES = {"ddp": {"name": "ddp", "params": {}}, "fsdp": FSDP, "once": ONCE}
ENGINES |= {f"zero{stage}": {"name": "deepspeed", "params": {"stage": stage}} for stage in (2, 3)}
LAYERS = 3


def make_loop(folder, engine, ranks, *, lora=False, checkpointing=False, **settings):
    torch.manual_seed(0)
    model, tokenizer = load_folder(folder / "model")
    if lora:
        model = with_lora(model, 4)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    settings = replace(SETTINGS, alpha=0.0, length=3.0, **{"rank": 4 if lora else None, **settings})
    rows = Rows(folder / "rows")
    given = {"signal": None, "vocab_size": len(tokenizer), "ranks": ranks, "micro_batch": 1}
    return Loop(ResponseModel(model), rows, settings, **given, engine=ENGINES[engine])


class Casts(TorchDispatchMode):
    """The bfloat16 copies of matrices that were made, and whether their memory is still held."""

    def __init__(self, shapes):
        super().__init__()
        self.shapes, self.made = shapes, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and out.dtype == torch.bfloat16 and out.shape in self.shapes:
            self.made.append(StorageWeakRef(out.untyped_storage()))
        return out


def casts(folder, engine, ranks):
    """(made, still held) of the layers' bfloat16 weights when a forward pass with checkpointing has left the last."""
    loop = make_loop(folder, engine, ranks, checkpointing=True, dtype="bfloat16")
    counted = []
    whole = load_folder(folder / "model")[0].get_decoder().layers  # the loop's may be in shards
    with Casts({p.shape for p in whole.parameters() if p.ndim == 2}) as mode:
        loop.model.backbone.layers[-1].register_forward_hook(
            lambda *_: counted.append((len(mode.made), sum(not copy.expired() for copy in mode.made)))
        )
        next(loop.steps())
    return counted[0]


def gradients(folder, engine, ranks):
    """After a micro-batch that is not the step's last: the floats of gradients on this rank, per float of weights; then
    the curve of the run.
    """
    loop = make_loop(folder, engine, ranks)
    loop.model.train()
    loop.accumulate(loop.order.batch_at(0)[:1], 10, last=False)
    held = sum(p.grad.to_local().numel() for p in loop.engine.student.parameters() if p.grad is not None)
    share = held / sum(p.numel() for p in loop.engine.student.parameters())
    loop.engine.optimiser.zero_grad()
    return share, [metrics["loss"] for metrics in make_loop(folder, engine, ranks).steps()]


def places(folder, ranks):
    """In how many pieces of memory the gradients of DDP lie, once its buckets are what they stay."""
    loop = make_loop(folder, "ddp", ranks)
    list(loop.steps())
    loop.accumulate(loop.order.batch_at(0)[:1], 10, last=True)
    return len({p.grad.untyped_storage().data_ptr() for p in loop.model.parameters()})


def checked(folder, engine, ranks):
    """The files whose checksums this rank takes of a checkpoint."""
    loop, taken, checksum = make_loop(folder, engine, ranks), [], checkpoints.checksum
    next(loop.steps())
    checkpoint = folder / engine / "attempt-001" / "checkpoint-1"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    checkpoints.checksum = lambda path: taken.append(path.stat().st_size) or checksum(path)
    save_checkpoint(loop, checkpoint)
    checkpoints.checksum = checksum
    return taken


def beside(folder, engine, ranks):
    """The curve of a run, and that of one that goes on from a checkpoint which the first wrote as it took steps."""
    loop, checkpoint = make_loop(folder, engine, ranks), folder / f"{engine}-beside"
    write, go, writer = loop.engine.write, threading.Event(), Writer(loop, beside=True)
    loop.engine.write = lambda *given: go.wait(60) and write(*given)
    steps = loop.steps()
    next(steps)
    writer.write(checkpoint)
    next(steps)
    go.set()
    list(steps)
    assert writer.finish() == [checkpoint]
    resumed = make_loop(folder, engine, ranks)
    load_checkpoint(resumed, checkpoint)
    assert resumed.step == 1
    list(resumed.steps())
    return loop.history, resumed.history


def exported(folder, engine, ranks):
    """Whether what is exported as steps are taken is, weight by weight, what was there; None on a rank that keeps
    none.
    """
    loop, found, go = make_loop(folder, engine, ranks), {}, threading.Event()
    writer, steps = Writer(loop, beside=True), loop.steps()
    next(steps)
    then = {name: tensor.clone() for name, tensor in loop.engine.weights().items()}
    writer.export(lambda weights: lambda: go.wait(60) and found.update(weights))
    list(steps)
    go.set()
    assert writer.finish() == []
    return [torch.equal(found[name], tensor) for name, tensor in then.items()] if found else None


def rank_process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    os.environ["LOCAL_RANK"] = str(rank)
    ranks = Ranks(rank, 2)
    found = {
        "places": places(folder, ranks),
        "casts": casts(folder, "fsdp", ranks),
        "gradients": {name: gradients(folder, name, ranks) for name in ("fsdp", "once")},
        "checked": {name: checked(folder, name, ranks) for name in ("fsdp", "zero2")},
        "beside": {name: beside(folder, name, ranks) for name in ("ddp", "fsdp")},
        "exported": {name: exported(folder, name, ranks) for name in ("ddp", "fsdp")},
        "weights": {
            (name, lora): list(make_loop(folder, name, ranks, lora=lora).engine.weights())
            for name in ("ddp", "fsdp", "zero2", "zero3")
            for lora in (False, True)
        },
    }
    torch.save(found, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    write_model(folder / "model", layers=LAYERS)
    write_rows(folder / "rows", load_folder(folder / "model")[1], heldout=5)
    torch.multiprocessing.spawn(rank_process, (folder,), nprocs=2)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


def test_the_gradients_of_ddp_lie_in_the_bucket_that_is_sent(found):
    assert [rank["places"] for rank in found] == [1, 1]


def test_bfloat16_copies_of_weights_go_with_their_layer(found):
    assert [rank["casts"] for rank in found] == [(LAYERS * 7, 0)] * 2


def test_a_rank_keeps_its_share_of_gradients_after_every_micro_batch_unless_told_to_sum_once(found):
    for rank in found:
        share, curve = rank["gradients"]["fsdp"]
        assert share == pytest.approx(0.5, rel=0.05)
        summed_once, same = rank["gradients"]["once"]
        assert summed_once == 0, "the gradient is whole, where autograd's user does not see it"
        assert curve == pytest.approx(same, rel=1e-5)


@pytest.mark.parametrize("engine", ["fsdp", "zero2"])
def test_checksums_are_taken_by_all_ranks(found, folder, engine):
    first, second = (rank["checked"][engine] for rank in found)
    assert max(sum(first), sum(second)) < 0.7 * (sum(first) + sum(second))
    whole = [path for path in (folder / engine).rglob("*") if path.is_file() and path.name != checkpoints.MANIFEST]
    assert sorted([*first, *second]) == sorted(path.stat().st_size for path in whole)
    assert newest_checkpoint(folder / engine, "fsdp" if engine == "fsdp" else "deepspeed-2") is not None


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_ranks_write_a_checkpoint_while_they_take_steps_together(found, engine):
    for rank in found:
        straight, resumed = rank["beside"][engine]
        assert resumed == straight


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_rank_0_exports_weights_while_the_ranks_take_steps_together(found, engine):
    first, second = (rank["exported"][engine] for rank in found)
    assert first == [True] * (LAYERS * 9 + 3)
    assert second is None


@pytest.mark.parametrize("engine", ["ddp", "fsdp", "zero2", "zero3"])
@pytest.mark.parametrize("lora", [False, True])
def test_an_export_is_on_rank_0_alone_and_of_adapters_without_what_they_are_merged_into(found, engine, lora):
    first, second = (rank["weights"][engine, lora] for rank in found)
    assert second == []
    assert len(first) == (LAYERS * 7 * 2 if lora else LAYERS * 9 + 3)
    assert all("lora_" in name for name in first) or not lora
