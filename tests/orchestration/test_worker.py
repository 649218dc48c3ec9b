"""What would only happen again ends a point at its first start."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file

from kdray.artifacts.answers import write_answers
from kdray.artifacts.curve import count_steps, read_attempt, read_peak, read_shares, read_times
from kdray.artifacts.notes import ended_early, stopped_at
from kdray.artifacts.source import LabelSource
from kdray.models.adapters import base_of, load_exported, merged, with_lora
from kdray.models.load import load_folder
from kdray.orchestration import trainer, worker
from kdray.orchestration.job import Export
from kdray.store import Attempt, Control, Key, Store
from kdray.train.checkpoints import Writer
from kdray.train.engines import Ranks
from tests.answers import cited_row
from tests.tiny import write_model, write_rows
from tests.train.test_loop import SETTINGS


def test_an_engine_that_is_not_installed_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path / "rows", load_folder(write_model(tmp_path / "student", layers=1))[1])
    attempt = Store(tmp_path / "store").begin(Key("train", "point", "0" * 12), {})
    job: Any = SimpleNamespace(
        attempt=attempt,
        store=tmp_path / "store",
        model=tmp_path / "student",
        data=tmp_path / "rows",
        among=None,
        pairs=None,
        settings=SETTINGS,
        soft_labels=(),
        engine={"name": "deepspeed", "params": {}},
        gradient_checkpointing=False,
        micro_batch=None,
        threads=torch.get_num_threads(),
    )
    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr(worker.ray.train, "get_context", lambda: context)
    monkeypatch.setattr(worker.ray.train.torch, "get_device", lambda: torch.device("cpu"))
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    worker.train_job(job)
    assert "deepspeed" in str(ended_early(attempt.path))


def test_a_worker_of_a_point_that_samples_keeps_what_its_time_went_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "rows", load_folder(write_model(tmp_path / "student", layers=1))[1])
    attempt = Store(tmp_path / "store").begin(Key("train", "point", "0" * 12), {})
    sampling = {"temperature": 1.0, "top_k": None, "max_new_tokens": 6}
    params = vars(SETTINGS) | {"length": 2, "on_policy": 1.0, "sampling": sampling}
    job: Any = SimpleNamespace(
        attempt=attempt,
        store=tmp_path / "store",
        model=tmp_path / "student",
        data=tmp_path / "rows",
        among=None,
        pairs=None,
        settings=trainer.settings_of(params),
        soft_labels=(LabelSource(str(tmp_path / "student"), {"name": "online", "params": {}}, "float32"),),
        engine={"name": "ddp", "params": {}},
        gradient_checkpointing=False,
        micro_batch=None,
        threads=torch.get_num_threads(),
        exports=(),
        final=False,
        checkpoint_minutes=60,
        checkpoint_every=None,
        workers=1,
    )
    context = SimpleNamespace(
        get_world_rank=lambda: 0, get_world_size=lambda: 1, get_experiment_name=lambda: "attempt-001"
    )
    monkeypatch.setattr(worker.ray.train, "get_context", lambda: context)
    monkeypatch.setattr(worker.ray.train.torch, "get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(worker, "_report", lambda *_: None)
    monkeypatch.setattr(worker, "_taken_away", lambda: False)
    assert worker.train_job(job) is False
    assert ended_early(attempt.path) is None
    curve = read_attempt(attempt.path)
    assert [1 <= step["sampled_length"] <= 6 for step in curve] == [True, True]
    assert "heldout_kl" in curve[-1]
    shares = read_shares(attempt.path)
    assert list(shares) == ["sampling", "teacher", "rest"]
    assert trainer.facts_of(attempt)["sampling_share"] == pytest.approx(shares["sampling"], abs=1e-3)
    assert min(shares.values()) > 0


@pytest.mark.parametrize("best", [1.0, -1.0])
def test_a_worker_of_an_aligned_point_learns_from_pairs_and_says_if_there_are_none(
    best: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_folder(write_model(tmp_path / "student", layers=1))[1]
    (tmp_path / "answers").mkdir()
    write_answers(tmp_path / "answers", 0, [cited_row(tokenizer, i, best) for i in range(10)], 1.0)
    attempt = Store(tmp_path / "store").begin(Key("train", "point", "0" * 12), {})
    params = vars(SETTINGS) | {"length": 2, "alpha": 0.0, "packing": False, "simpo": {"beta": 2.5, "gamma": 1.4}}
    job: Any = SimpleNamespace(
        attempt=attempt,
        store=tmp_path / "store",
        model=tmp_path / "student",
        data=None,
        among=None,
        pairs=tmp_path / "answers",
        settings=trainer.settings_of(params),
        soft_labels=(),
        engine={"name": "ddp", "params": {}},
        gradient_checkpointing=False,
        micro_batch=2,
        threads=torch.get_num_threads(),
        exports=(Export(2.0, Key("student", "point-s2", "1" * 12), {}),),
        final=False,
        checkpoint_minutes=60,
        checkpoint_every=None,
        workers=1,
    )
    context = SimpleNamespace(
        get_world_rank=lambda: 0, get_world_size=lambda: 1, get_experiment_name=lambda: "attempt-001"
    )
    monkeypatch.setattr(worker.ray.train, "get_context", lambda: context)
    monkeypatch.setattr(worker.ray.train.torch, "get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(worker, "_report", lambda *_: None)
    monkeypatch.setattr(worker, "_taken_away", lambda: False)
    assert worker.train_job(job) is False
    exported = Store(tmp_path / "store").get(job.exports[0].key)
    if best < 0:
        assert "none has a citation that is better than its plain one" in str(ended_early(attempt.path))
        assert exported is None
        return
    assert ended_early(attempt.path) is None
    curve = read_attempt(attempt.path)
    assert [(step["step"], step["examples"], "margin" in step) for step in curve] == [(1, 4, True), (2, 8, True)]
    assert "heldout_margin" in curve[-1]
    assert exported
    assert exported.facts["examples"] == 8
    assert load_folder(exported.path)[0].config.num_hidden_layers == 1


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("student") / "model", layers=1)


def export(student: Path, store: Path, **form: Any) -> Path:
    """The folder of a checkpoint that a point exports in this form."""
    model, tokenizer = load_folder(student)
    lora = form.pop("lora", False) or form.get("adapters")
    model = with_lora(model, 2) if lora else model
    loop: Any = SimpleNamespace(
        model=SimpleNamespace(whole=model),
        engine=SimpleNamespace(weights=lambda: dict(model.state_dict())),
        ranks=SimpleNamespace(rank=0),
        step=3,
    )
    settings = replace(SETTINGS, rank=2) if lora else SETTINGS
    job: Any = SimpleNamespace(store=store, model=student, settings=settings)
    key = Key("student", "point-s3", "0" * 12)
    worker._export(job, [Export(3, key, {}, **form)], loop, Writer(loop, beside=False), tokenizer, final=False)
    made = Store(store).get(key)
    assert made is not None
    assert made.facts["examples"] == 3 * settings.batch
    assert not Store(store).verify(key.id)
    return made.path


def test_a_checkpoint_is_exported_in_the_type_that_is_asked_for(tmp_path: Path, student: Path) -> None:
    whole, half = export(student, tmp_path / "a"), export(student, tmp_path / "b", dtype="bfloat16")
    exact, rounded = (load_file(folder / "model.safetensors") for folder in (whole, half))
    assert exact.keys() == rounded.keys(), "a tied head is written once"
    assert all(torch.equal(exact[name].bfloat16(), rounded[name]) for name in exact)
    assert {tensor.dtype for tensor in exact.values()} == {torch.float32}
    assert [json.loads((folder / "config.json").read_text())["dtype"] for folder in (whole, half)] == [
        "float32",
        "bfloat16",
    ]
    read, _ = load_folder(half)
    assert torch.equal(read.get_input_embeddings().weight, exact["model.embed_tokens.weight"].bfloat16().float())


def test_adapters_are_exported_alone(tmp_path: Path, student: Path) -> None:
    folder = export(student, tmp_path, dtype="bfloat16", adapters=True)
    assert {path.name for path in folder.glob("*.safetensors")} == {"adapter_model.safetensors"}
    assert base_of(folder) == student
    assert load_exported(folder, torch.float32)[1].eos_token == "<|im_end|>"


def test_adapters_are_merged_in_the_type_of_their_export(
    tmp_path: Path, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(worker, "merged", lambda *given: asked.append(given[-1]) or merged(*given))
    folder = export(student, tmp_path, dtype="bfloat16", lora=True)
    assert asked == [torch.bfloat16]
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}


def test_dropped_weights_are_exported_again_where_they_are_asked_for(tmp_path: Path, student: Path) -> None:
    export(student, tmp_path)
    key = Key("student", "point-s3", "0" * 12)
    made = Store(tmp_path).get(key)
    assert made
    made.drop(["model.safetensors"], "test")
    assert not (export(student, tmp_path) / "model.safetensors").is_file(), "training on makes nothing again"
    again = export(student, tmp_path, again=True)
    assert again.name == "attempt-002"
    assert (again / "model.safetensors").is_file()
    assert export(student, tmp_path, again=True) == again


class FakeLoop:
    """Six steps that teach nothing; it is asked to stop at one of them."""

    total_steps = 6

    def __init__(self, stops_at: int) -> None:
        self.step, self.stops_at = 0, stops_at
        self.ranks, self.device = Ranks(), torch.device("cpu")
        self.spent: dict[str, float] = {}

    @property
    def stopping(self) -> bool:
        return self.step >= self.stops_at

    def step_of(self, position: float) -> int:
        return int(position)

    def heldout(self, batch: int) -> dict[str, float]:
        return {"heldout_ce": 1.0}

    def steps(self) -> Iterator[dict[str, float]]:
        while self.step < self.total_steps:
            self.step += 1
            yield {"step": self.step, "examples": self.step, "tokens": 1, "loss": 1.0, "ce": 1.0}


Told = list[tuple[int, list[int]]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """The reports of a point, each the step and the steps of the checkpoints that are there and were not told of. On a
    GPU, none is there before it is waited for.
    """

    class Writer:
        def __init__(self, loop: Any, *, beside: bool) -> None:
            self.beside, self.waits = beside, list[Path]()

        def check(self) -> None:
            pass

        def write(self, folder: Path) -> list[Path]:
            sealed, self.waits = (self.waits, [folder]) if self.beside else ([folder], [])
            return sealed

        def export(self, prepare: Any) -> list[Path]:
            return self.finish()

        def finish(self) -> list[Path]:
            sealed, self.waits = self.waits, []
            return sealed

    reports: Told = []
    monkeypatch.setattr(worker, "Writer", Writer)
    monkeypatch.setattr(
        worker,
        "_report",
        lambda metrics, sealed, ranks: reports.append((metrics["step"], [int(one.name[-8:]) for one in sealed])),
    )
    monkeypatch.setattr(worker, "_taken_away", lambda: False)
    return reports


def make_job(attempt: Attempt, **given: Any) -> Any:
    engine = {"name": "ddp", "params": {}}
    kept = {"attempt": attempt, "exports": (), "final": False, "engine": engine}
    return SimpleNamespace(**kept | {"checkpoint_every": None, "checkpoint_minutes": 60} | given)


def train(job: Any, loop: Any) -> bool:
    return worker._train(job, loop, worker._writer(job, loop), None, Ranks())


@pytest.mark.parametrize(
    ("stops_at", "reports", "stopped"),
    [(3, [(2, [2]), (3, [3])], 3), (4, [(2, [2]), (4, [4])], 4), (6, [(2, [2]), (4, [4]), (6, [])], None)],
)
def test_a_point_that_is_to_stop_writes_one_checkpoint_and_leaves(
    stops_at: int, reports: Told, stopped: int | None, tmp_path: Path, told: Told
) -> None:
    """The last step is the end anyway."""
    attempt = Store(tmp_path).begin(Key("train", "point", "0" * 12), {})
    loop: Any = FakeLoop(stops_at)
    assert not train(make_job(attempt, checkpoint_every=2), loop)
    assert told == reports
    assert stopped_at(attempt.path) == stopped
    assert count_steps(attempt.path) == len(read_times(attempt.path)) == stops_at


@pytest.mark.parametrize(
    ("engine", "stops_at", "reports"),
    [
        ("ddp", 99, [(2, []), (4, [2]), (6, [4])]),
        ("fsdp", 3, [(2, []), (3, [2, 3])]),
        ("deepspeed", 99, [(2, [2]), (4, [4]), (6, [])]),
    ],
)
def test_on_a_gpu_a_checkpoint_is_told_of_when_the_next_is_due_or_the_point_ends(
    engine: str, stops_at: int, reports: Told, tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 0)
    loop: Any = FakeLoop(stops_at)
    loop.device = torch.device("cuda")
    attempt = Store(tmp_path).begin(Key("train", "point", "0" * 12), {})
    job = make_job(attempt, checkpoint_every=2, engine={"name": engine, "params": {}})
    train(job, loop)
    assert told == reports


def test_a_checkpoint_is_told_of_by_the_export_that_has_waited_for_it(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 0)
    loop: Any = FakeLoop(stops_at=99)
    loop.device = torch.device("cuda")
    attempt = Store(tmp_path).begin(Key("train", "point", "0" * 12), {})
    kept = (Export(3.0, Key("student", "point-s3", "1" * 12), {}),)
    train(make_job(attempt, checkpoint_every=2, exports=kept, settings=SETTINGS, store=tmp_path), loop)
    assert told == [(2, []), (3, [2]), (4, []), (6, [4])]


@pytest.mark.parametrize("rank", [0, 1])
def test_every_checkpoint_is_reported_alike_by_all_ranks(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(worker.ray.train, "report", lambda metrics, **given: reports.append(given))
    for sealed in ([], [Path("/a/checkpoint-2"), Path("/a/checkpoint-3")]):
        worker._report({"loss": 1.0}, sealed, Ranks(rank, 2))
    assert [given.get("checkpoint_dir_name") for given in reports] == (
        [None] * 3 if rank else [None, "checkpoint-2", "checkpoint-3"]
    )


def test_the_peak_of_memory_is_kept_where_there_is_a_gpu(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = {"cpu": None, "cuda": 6.0}
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: loop.step << 30)
    for kind, peak in peaks.items():
        attempt = Store(tmp_path).begin(Key("train", "point", "0" * 12), {})
        loop: Any = FakeLoop(stops_at=99)
        loop.device = torch.device(kind)
        train(make_job(attempt), loop)
        assert read_peak(attempt.path) == peak
        assert len(read_times(attempt.path)) == 6


def test_a_point_whose_node_is_taken_away_writes_a_checkpoint_and_leaves_it_at_once(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Store(tmp_path).begin(Key("train", "point", "0" * 12), {})
    job, loop = make_job(attempt), cast(Any, FakeLoop(stops_at=99))
    monkeypatch.setattr(worker, "_taken_away", lambda: True)
    assert train(job, loop)
    assert told == [(1, [1])]
    assert stopped_at(attempt.path) is None, "it is to go on"
    last: Any = FakeLoop(stops_at=99)
    last.step = 5
    assert not train(job, last), "the last step is the end anyway"
    assert told[1:] == [(6, [])]


def test_a_point_that_has_left_a_node_is_trained_on_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    left, made = [True, True, False], []

    def make(job: Any, callbacks: list[Any]) -> Any:
        made.append(callbacks)
        return SimpleNamespace(fit=lambda: SimpleNamespace(return_value=left.pop(0)))

    monkeypatch.setattr(trainer, "make_trainer", make)
    trainer.fit(SimpleNamespace(), [list])  # type: ignore[arg-type]
    assert made == [[[]], [[]], [[]]]
    assert made[0][0] is not made[1][0], "a callback belongs to one run"


def test_the_request_is_looked_up_every_few_seconds_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control, attempt = Control(tmp_path), Store(tmp_path).begin(Key("train", "point", "0" * 12), {})
    now = 100.0
    monkeypatch.setattr(worker.time, "monotonic", lambda: now)
    job: Any = SimpleNamespace(store=tmp_path, attempt=attempt)
    asked = worker.Asked(job)
    assert not asked()
    control.stop(attempt.key.id)
    assert not asked(), "the store is asked at every step"
    now += worker.LOOK
    assert asked()
    control.unstop([attempt.key.id])
    now += worker.LOOK
    assert asked()
