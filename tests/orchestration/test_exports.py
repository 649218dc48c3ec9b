"""Exports of a point, written at once or, as on GPUs, while steps are taken: the same files, and none is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from kdray.artifacts.curve import read_attempt
from kdray.artifacts.notes import ended_early
from kdray.models.load import load_folder
from kdray.orchestration import worker
from kdray.orchestration.job import Export
from kdray.store import Key, Store
from kdray.train.checkpoints import Writer, newest_checkpoint
from kdray.train.loop import DivergedError, Loop
from tests.tiny import write_model, write_rows
from tests.train.test_loop import SETTINGS

POINT = Key("train", "point", "0" * 12)
KEPT = {step: Key("student", f"point-s{step}", f"{step}" * 12) for step in (2, 3, 5)}
Train = Callable[..., None]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_rows(folder / "rows", load_folder(write_model(folder / "student", layers=1))[1])
    return folder


@pytest.fixture
def writers() -> list[Writer]:
    """Those of the attempts, in their order."""
    return []


@pytest.fixture
def train(world: Path, writers: list[Writer], monkeypatch: pytest.MonkeyPatch) -> Train:
    """Makes an attempt at a point of five steps, of which three are kept, in a store."""
    context = SimpleNamespace(
        get_world_rank=lambda: 0, get_world_size=lambda: 1, get_experiment_name=lambda: "attempt-001"
    )
    monkeypatch.setattr(worker.ray.train, "get_context", lambda: context)
    monkeypatch.setattr(worker.ray.train.torch, "get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(worker, "_report", lambda *_: None)
    monkeypatch.setattr(worker, "_taken_away", lambda: False)

    def run(store: Path, *, beside: bool, lora: bool = False, every: int | None = None, **form: Any) -> None:
        lora_settings = {"method": "lora", "rank": 2, "dropout": 0.5} if lora else {}
        job: Any = SimpleNamespace(
            attempt=Store(store).begin(POINT, {}),
            store=store,
            model=world / "student",
            data=world / "rows",
            among=None,
            pairs=None,
            settings=replace(SETTINGS, alpha=0.0, length=5.0, **lora_settings),
            soft_labels=(),
            engine={"name": "ddp", "params": {}},
            gradient_checkpointing=False,
            micro_batch=None,
            threads=torch.get_num_threads(),
            exports=[Export(step, key, {}, **form) for step, key in KEPT.items()],
            final=False,
            checkpoint_minutes=60,
            checkpoint_every=every,
            workers=1,
        )
        monkeypatch.setattr(
            worker, "_writer", lambda job, loop: writers.append(Writer(loop, beside=beside)) or writers[-1]
        )
        worker.train_job(job)

    return run


def files(store: Path) -> dict[str, bytes]:
    """Of all exports in a store, by step and name, and the curve of the last attempt."""
    *_, attempt = sorted(Store(store).folder(POINT).glob("attempt-*"))
    found = {"curve": str(read_attempt(attempt)).encode()}
    for step, key in KEPT.items():
        made = Store(store).get(key)
        assert made, f"the export at step {step} is lost"
        assert made.facts["step"] == step
        assert not Store(store).verify(key.id)
        found |= {f"{step}/{file.name}": file.read_bytes() for file in made.path.iterdir()}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("form", [{}, {"dtype": "bfloat16"}, {"lora": True}, {"lora": True, "adapters": True}], ids=str)
def test_what_is_exported_beside_steps_is_bit_for_bit_what_training_waits_for(
    form: dict[str, Any], tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "waits", beside=False, **form)
    merging, merged, taken = [], worker.merged, Loop._take_step
    step = threading.Condition()

    def take(loop: Loop) -> dict[str, float]:
        metrics = taken(loop)
        with step:
            step.notify_all()
        return metrics

    def later(save: Callable[..., None]) -> Callable[..., None]:
        def wait(*given: Any) -> None:
            with step:
                step.wait(0.5)  # for the next step: after the last there is none, and training waits for this
            save(*given)

        return wait

    monkeypatch.setattr(Loop, "_take_step", take)
    monkeypatch.setattr(worker, "merged", lambda *given: merging.append(threading.current_thread()) or merged(*given))
    for name in ("save", "save_adapters"):
        monkeypatch.setattr(worker, name, later(getattr(worker, name)))
    train(tmp_path / "beside", beside=True, **form)
    assert files(tmp_path / "beside") == files(tmp_path / "waits")
    assert set(merging) <= {threading.main_thread()}, "it draws random numbers, as dropout does"


@pytest.mark.slow
@pytest.mark.parametrize(("every", "resumes"), [(1, 1), (None, None)])
def test_an_export_that_cannot_be_written_ends_the_attempt_and_is_made_by_the_next_one(
    every: int | None, resumes: int | None, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "undisturbed", beside=False)
    save = worker.save

    def full(model: Any, tokenizer: Any, folder: Path, *given: Any) -> None:
        save(model, tokenizer, folder, *given)
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(worker, "save", full)
        with pytest.raises(OSError, match="no space left"):
            train(tmp_path / "store", beside=True, every=every)
    store = Store(tmp_path / "store")
    assert [store.get(key) for key in KEPT.values()] == [None] * 3
    newest = newest_checkpoint(store.folder(POINT), "ddp")
    assert (newest and int(newest.name[-8:])) == resumes, "none is of a step after an export that is not there"
    train(tmp_path / "store", beside=True, every=every)
    assert files(tmp_path / "store") == files(tmp_path / "undisturbed")


@pytest.mark.slow
def test_an_attempt_that_is_killed_before_an_export_is_whole_leaves_it_to_the_next_one(
    tmp_path: Path, train: Train, writers: list[Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What still writes then may go on: its folder is its own."""
    train(tmp_path / "undisturbed", beside=False)
    save, go, taken = worker.save, threading.Event(), Loop._take_step

    def held(*given: Any) -> None:
        go.wait(60)
        save(*given)

    def killed(loop: Loop) -> dict[str, float]:
        if loop.step == 2:
            raise KeyboardInterrupt
        return taken(loop)

    with monkeypatch.context() as patch:
        patch.setattr(worker, "save", held)
        patch.setattr(Loop, "_take_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "store", beside=True)
    store = Store(tmp_path / "store")
    assert store.get(KEPT[2]) is None
    train(tmp_path / "store", beside=True)
    found = files(tmp_path / "store")
    assert found == files(tmp_path / "undisturbed")
    go.set()
    late = writers[1]._writing
    assert late
    late.result(60)
    assert files(tmp_path / "store") == found


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["diverges", "is stopped", "is done"])
def test_a_point_ends_once_its_exports_are_whole(
    ends: str, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, taken, last = worker.save, Loop._take_step, {"diverges": 2, "is stopped": 3, "is done": 5}[ends]

    def slow(*given: Any) -> None:
        time.sleep(0.3)
        save(*given)

    def take(loop: Loop) -> dict[str, float]:
        if ends == "diverges" and loop.step == last:
            raise DivergedError("loss nan")
        metrics = taken(loop)
        loop.stopping = ends == "is stopped" and loop.step == last
        return metrics

    monkeypatch.setattr(worker, "save", slow)
    monkeypatch.setattr(Loop, "_take_step", take)
    train(tmp_path, beside=True)
    store = Store(tmp_path)
    assert [step for step, key in KEPT.items() if store.get(key)] == [step for step in KEPT if step <= last]
    assert ended_early(store.folder(POINT) / "attempt-001") == ("loss nan" if ends == "diverges" else None)


def test_an_export_says_what_was_so_when_its_weights_were_gathered(tmp_path: Path, world: Path) -> None:
    """Sampling gives a model another generation config for a while, and steps go on."""
    model, tokenizer = load_folder(world / "student")
    store, kept = Store(tmp_path), list[Callable[[], None]]()
    loop: Any = SimpleNamespace(model=SimpleNamespace(whole=model), step=2)
    writer: Any = SimpleNamespace(export=lambda prepare: kept.append(prepare(dict(model.state_dict()))) or [])
    job: Any = SimpleNamespace(store=tmp_path, model=world / "student", settings=SETTINGS)
    model.generation_config.save_pretrained(tmp_path / "own")
    assert worker._export(job, [Export(2, KEPT[2], {})], loop, writer, tokenizer, final=False) == []
    assert store.get(KEPT[2]) is None, "that is the writer's to do"
    model.generation_config, loop.step = GenerationConfig(max_new_tokens=7), 3
    kept[0]()
    made = store.get(KEPT[2])
    assert made
    assert made.facts["step"] == 2
    written = (made.path / "generation_config.json").read_text()
    assert written == (tmp_path / "own" / "generation_config.json").read_text()
