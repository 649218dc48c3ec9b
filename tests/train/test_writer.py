"""Checkpoints and exports that are written while steps are taken, as on GPUs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kdray.artifacts.rows import Rows
from kdray.models.head import ResponseModel
from kdray.models.load import load_folder
from kdray.train import checkpoints
from kdray.train.checkpoints import Writer, load_checkpoint, newest_checkpoint
from kdray.train.engines import Ranks
from kdray.train.loop import Loop
from tests.tiny import write_model, write_rows
from tests.train.test_loop import SETTINGS


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_rows(folder / "rows", load_folder(write_model(folder / "student", layers=1))[1])
    return folder


def make_loop(world: Path) -> Loop:
    model, tokenizer = load_folder(world / "student")
    settings = replace(SETTINGS, alpha=0.0, length=5.0)
    given: Any = {"signal": None, "vocab_size": len(tokenizer), "ranks": Ranks()}
    return Loop(ResponseModel(model), Rows(world / "rows"), settings, **given)


def held(loop: Loop) -> threading.Event:
    """Makes the loop's engine write nothing before the event."""
    write, go = loop.engine.write, threading.Event()
    loop.engine.write = lambda *given: go.wait(60) and write(*given)  # type: ignore[method-assign]
    return go


def test_a_checkpoint_is_of_its_step_whatever_steps_are_taken_while_it_is_written(world: Path, tmp_path: Path) -> None:
    loop, straight = make_loop(world), list(make_loop(world).steps())
    go, writer, steps = held(loop), Writer(loop, beside=True), loop.steps()
    next(steps), next(steps)
    assert writer.write(tmp_path / "attempt-001") == []
    next(steps), next(steps)
    assert newest_checkpoint(tmp_path, "ddp") is None
    go.set()
    assert writer.finish() == [tmp_path / "attempt-001"]
    assert writer.finish() == [], "it has been told of"
    resumed = make_loop(world)
    load_checkpoint(resumed, tmp_path / "attempt-001")
    assert resumed.step == 2
    list(resumed.steps())
    assert resumed.history == straight


def test_the_next_one_waits_for_it_and_has_no_part_in_its_copy(world: Path, tmp_path: Path) -> None:
    loop = make_loop(world)
    go, writer, steps = held(loop), Writer(loop, beside=True), loop.steps()
    next(steps)
    writer.write(tmp_path / "attempt-001")
    next(steps)
    threading.Timer(0.2, go.set).start()
    assert writer.write(tmp_path / "attempt-002") == [tmp_path / "attempt-001"]
    assert newest_checkpoint(tmp_path, "ddp") is not None
    assert writer.finish() == [tmp_path / "attempt-002"]
    first, second = make_loop(world), make_loop(world)
    load_checkpoint(first, tmp_path / "attempt-001")
    load_checkpoint(second, tmp_path / "attempt-002")
    assert (first.step, second.step) == (1, 2)
    assert next(first.steps()) == second.history[1]
    for ours, theirs in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_fault_while_it_is_written_leaves_the_one_before_and_is_raised_after_a_step(
    world: Path, tmp_path: Path
) -> None:
    loop = make_loop(world)
    writer, steps, write = Writer(loop, beside=True), loop.steps(), loop.engine.write
    next(steps)
    writer.write(tmp_path / "attempt-001")
    writer.finish()

    def full(*given: Any) -> None:
        write(*given)
        raise OSError("no space left on device")

    loop.engine.write = full  # type: ignore[method-assign]
    next(steps)
    writer.check()
    writer.write(tmp_path / "attempt-002")
    assert writer._writing
    assert writer._writing.exception(timeout=60)
    next(steps)
    with pytest.raises(OSError, match="no space left"):
        writer.check()
    assert list((tmp_path / "attempt-002").iterdir())
    found = newest_checkpoint(tmp_path, "ddp")
    assert found
    assert found.name == "attempt-001"


def test_what_is_not_beside_is_there_at_once(world: Path, tmp_path: Path) -> None:
    loop = make_loop(world)
    writer = Writer(loop, beside=False)
    next(loop.steps())
    assert writer.write(tmp_path / "attempt-001") == [tmp_path / "attempt-001"]
    assert newest_checkpoint(tmp_path, "ddp") == tmp_path / "attempt-001"
    assert writer.finish() == []


def test_an_export_is_of_its_step_and_a_checkpoint_is_begun_once_it_is_whole(world: Path, tmp_path: Path) -> None:
    """One that is resumed from must not be of a later step than an export that never was."""
    loop, go, order = make_loop(world), threading.Event(), list[str]()
    writer, steps, write = Writer(loop, beside=True), loop.steps(), loop.engine.write
    loop.engine.write = lambda *given: order.append("checkpoint") or write(*given)  # type: ignore[method-assign]
    next(steps)
    then, found = {name: own.clone() for name, own in loop.engine.weights().items()}, dict[str, torch.Tensor]()

    def prepare(weights: dict[str, torch.Tensor]) -> Callable[[], None]:
        def keep() -> None:
            go.wait(60)
            order.append("export")
            found.update({name: tensor.clone() for name, tensor in weights.items()})

        return keep

    assert writer.export(prepare) == []
    next(steps)
    threading.Timer(0.2, go.set).start()
    assert writer.write(tmp_path / "attempt-001") == [], "an export is no checkpoint to tell of"
    assert writer.finish() == [tmp_path / "attempt-001"]
    assert order == ["export", "checkpoint"]
    assert found.keys() == then.keys()
    assert all(torch.equal(found[name], then[name]) for name in then)
    assert not all(torch.equal(now, then[name]) for name, now in loop.engine.weights().items()), "they have moved"


def test_an_export_takes_the_memory_that_checkpoints_are_copied_to(world: Path, tmp_path: Path) -> None:
    loop, copied = make_loop(world), list[set[int]]()
    writer, write = Writer(loop, beside=True), loop.engine.write

    def pointers(weights: dict[str, torch.Tensor]) -> set[int]:
        return {tensor.untyped_storage().data_ptr() for tensor in weights.values()}

    def keep(state: Any, *given: Any) -> None:
        copied.append(pointers(state["weights"]))
        write(state, *given)

    loop.engine.write = keep  # type: ignore[method-assign]
    next(loop.steps())
    writer.write(tmp_path / "attempt-001")
    writer.export(lambda weights: copied.append(pointers(weights)) or (lambda: None))
    writer.finish()
    checkpoint, export = copied
    assert export == checkpoint
    assert not export & pointers(loop.engine.weights())


def test_what_was_gathered_in_main_memory_is_not_copied_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `fsdp`, whose weights are put together there."""
    own, gathered = torch.empty(2, device="meta"), torch.zeros(3)
    copied: list[Any] = []
    stager = SimpleNamespace(stage=lambda state: copied.append(state) or {name: torch.ones(2) for name in state})
    monkeypatch.setattr(checkpoints, "DefaultStager", lambda options: stager)
    engine = SimpleNamespace(weights=lambda: {"own": own, "gathered": gathered})
    loop: Any = SimpleNamespace(device=own.device, engine=engine, ranks=Ranks())
    found: list[dict[str, torch.Tensor]] = []
    writer = Writer(loop, beside=True)
    writer.export(lambda weights: found.append(weights) or (lambda: None))
    writer.finish()
    assert [list(state) for state in copied] == [["own"]]
    assert found[0]["gathered"] is gathered
    assert torch.equal(found[0]["own"], torch.ones(2))


def test_of_a_gpu_the_copy_is_pinned_and_the_thread_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    device, asked, there = torch.device("cuda", 3), [], []
    monkeypatch.setattr(
        checkpoints, "DefaultStager", lambda options: asked.append(options) or SimpleNamespace(stage=dict)
    )
    monkeypatch.setattr(torch.cuda, "set_device", there.append)
    monkeypatch.setattr(checkpoints, "_write", lambda *_: (threading.current_thread().name, list(there)))
    loop: Any = SimpleNamespace(device=device, engine=SimpleNamespace(state=dict), history=[], ranks=Ranks())
    writer = Writer(loop, beside=True)
    writer.write(Path("nowhere"))
    (found,) = writer.finish()
    assert found == ("checkpoint_0", [device])
    assert (asked[0].use_pinned_memory, asked[0].use_non_blocking_copy) == (True, True)
