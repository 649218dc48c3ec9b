"""What a machine lacks is told before any work: here without a cluster, as a note where a cluster does the work."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from typing import Any

import pytest

from kdray.check import machine as module
from kdray.check.checks import check_grid
from kdray.check.machine import Need, needs_of, require_gpus
from kdray.spec import InputError, load_grid
from kdray.spec.grid import Grid
from kdray.store import Outer, Store
from tests.conftest import ABSENT, Install, TinyGrid
from tests.plan.conftest import MakePlan

TUNE = {"lr": 1e-3, "steps": 2}
TEACHERS = {"teacher": ABSENT, "teachers": {"big": {"model": "file:HERE/teacher", "tune": TUNE | {"method": "qlora"}}}}
GREEDY = {"score.tasks": [{"name": "xsum", "source": "file:HERE/xsum.jsonl"}]}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, a cluster or any extra."""
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "OPENAI_BASE_URL", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    find = importlib.util.find_spec
    extras = ("bitsandbytes", "vllm", "nltk", "sacrebleu")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in extras else find(name))
    monkeypatch.setattr(module, "has_gpu", lambda: False)


def check(tiny_grid: TinyGrid, changes: dict[str, Any], **options: bool) -> list[str]:
    grid = load_grid(tiny_grid(changes))
    return check_grid(grid, Outer(Store(grid.runtime.store).root), offline=True, **options)


PACKAGES = {
    "a student by QLoRA": (
        {"train.method": "qlora"},
        "train.method: the package 'bitsandbytes' is not installed",
        "kdray[qlora]",
    ),
    "a teacher by QLoRA": (
        {"teacher.tune.method": "qlora"},
        "teacher.tune.method: the package 'bitsandbytes' is",
        "or use lora",
    ),
    "one of the teachers": (
        TEACHERS,
        "teachers.big.tune.method: the package 'bitsandbytes' is not installed",
        "kdray[qlora]",
    ),
    "soft labels of a quantised teacher": (
        {"soft_labels": {"quantise": "4bit"}},
        "soft_labels.quantise: the package 'bitsandbytes' is not installed",
        "kdray[qlora]",
    ),
    "answers of a quantised teacher": (
        {"augment": {"quantise": "8bit"}, "axes.labels": ["teacher"]},
        "augment.quantise: the package 'bitsandbytes' is not installed",
        "or leave it out",
    ),
    "meteor": (
        GREEDY | {"score.metrics": ["meteor"]},
        "score.metrics.meteor: the package 'nltk' is not installed",
        "kdray[metrics]",
    ),
    "chrf": (
        GREEDY | {"score.metrics": ["chrf"]},
        "score.metrics.chrf: the package 'sacrebleu' is not installed",
        "kdray[metrics]",
    ),
    "a judge": (
        GREEDY | {"score.metrics": [{"name": "judge", "model": "m"}]},
        "score.metrics.judge: OPENAI_BASE_URL is not set",
        "export OPENAI_BASE_URL=",
    ),
    "a judge of own answers": (
        {
            "lens": {
                "own": {
                    "task": {"name": "xsum", "source": "file:HERE/xsum.jsonl"},
                    "metric": {"name": "judge", "model": "m"},
                }
            }
        },
        "lens.own.metric: OPENAI_BASE_URL is not set",
        "export OPENAI_BASE_URL=",
    ),
}


@pytest.mark.parametrize(
    ("changes", "said", "remedy"), PACKAGES.values(), ids=[name.replace(" ", "-") for name in PACKAGES]
)
def test_what_is_not_there_is_refused_here_and_noted_for_a_cluster(
    changes: dict[str, Any], said: str, remedy: str, tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError) as caught:
        check(tiny_grid, changes)
    assert str(caught.value).startswith(said)
    assert remedy in str(caught.value)
    field = said.partition(":")[0]
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert [
        note for note in check(tiny_grid, changes) if note.startswith(field) and "every node of the cluster" in note
    ]
    monkeypatch.setenv("RAY_ADDRESS", "local")  # a Ray of our own
    with pytest.raises(InputError, match=r"is not (installed|set)"):
        check(tiny_grid, changes)


DEVICES = {
    "a GPU": (
        {"runtime.device": "gpu"},
        "runtime.device: gpu, but this machine has none; leave it out, or set RAY_ADDRESS",
    ),
    "a type of GPU": ({"runtime.accelerator": "H100"}, "runtime.accelerator: H100, but this machine has no GPU"),
    "compilation": ({"train.compile": True}, "train.compile: true without a GPU; on a CPU it does not pay"),
    "compilation of a teacher": ({"teacher.tune.compile": True}, "teacher.tune.compile: true without a GPU"),
    "vllm": (GREEDY | {"score.engine": "vllm"}, "score.engine: vllm without a GPU; use transformers"),
    "vllm for the teacher": ({"augment.engine": "vllm"}, "augment.engine: vllm without a GPU"),
}


@pytest.mark.parametrize(("changes", "said"), DEVICES.values(), ids=[name.replace(" ", "-") for name in DEVICES])
def test_what_needs_a_gpu_is_refused_where_there_is_none(
    changes: dict[str, Any], said: str, tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError) as caught:
        check(tiny_grid, changes)
    assert str(caught.value).startswith(said)
    check(tiny_grid, changes, elsewhere=True)
    monkeypatch.setattr(module, "has_gpu", lambda: True)
    if "vllm" in said:
        with pytest.raises(
            InputError, match=r"\.engine: the package 'vllm' is not installed; pip install 'kdray\[vllm\]', or use"
        ):
            check(tiny_grid, changes)
    else:
        check(tiny_grid, changes)


@pytest.mark.parametrize(
    "changes", [{"train.compile": True}, {"augment.engine": "vllm"}, GREEDY | {"score.engine": "vllm"}]
)
def test_what_needs_a_gpu_is_refused_beside_device_cpu_wherever_it_runs(
    changes: dict[str, Any], tiny_grid: TinyGrid
) -> None:
    with pytest.raises(InputError, match=r"(true|vllm) with runtime\.device cpu; "):
        check(tiny_grid, changes | {"runtime.device": "cpu"}, elsewhere=True)


def test_a_type_of_gpu_that_ray_does_not_list_is_noted(tiny_grid: TinyGrid) -> None:
    [note] = check(tiny_grid, {"runtime.accelerator": "h100"}, elsewhere=True)
    assert note.startswith("runtime.accelerator: 'h100' is not in Ray's list; did you mean 'H100'?")
    assert check(tiny_grid, {"runtime.accelerator": "A100-80G"}, elsewhere=True) == []


def test_workers_without_a_sequence_of_their_own_are_noted(tiny_grid: TinyGrid) -> None:
    idle = {"axes.batch": [2, 8], "runtime.workers": 4}
    assert check(tiny_grid, idle) == ["runtime.workers: 4 share batches of 2: 2 of them do nothing there but wait"]
    assert check(tiny_grid, idle | {"runtime.workers": 2}) == check(tiny_grid, idle | {"runtime.workers": "auto"}) == []


def test_rays_list_is_found() -> None:
    assert {"V100", "A100", "H100", "B200", "L4", "AMD-Instinct-MI300X-OAM"} <= set(module.ray_accelerators())


def test_a_node_is_asked_for_what_a_grid_needs_and_for_no_more(plan: MakePlan) -> None:
    grid = plan({"train.method": "qlora", **GREEDY, "score.metrics": ["chrf"], "score.engine": "vllm"}).grid
    found = {(need.field, need.name): need.lack() for need in needs_of(grid, trains=True)}
    assert found == {
        ("train.method", "bitsandbytes"): "the package 'bitsandbytes' is not installed",
        ("score.engine", "vllm"): "the package 'vllm' is not installed",
        ("score.metrics.chrf", "sacrebleu"): "the package 'sacrebleu' is not installed",
    }
    assert needs_of(plan(GREEDY).grid, trains=True) == []
    assert Need("a", "package", "torch", "").lack() == ""


def test_a_node_is_asked_for_the_distributions_behind_a_grids_components(install: Install, plan: MakePlan) -> None:
    install.module("mine.py", "DECLARED = declare.Loss(version=1)\ndef mine(student, teacher): ...\n")
    install.module("other.py", "DECLARED = declare.Engine(version=1)\ndef other(): ...\n")
    install({"kdray.losses": {"mine": "mine"}, "kdray.engines": {"other": "other"}})
    install({"kdray.losses": {"unused": "mine"}}, "second")
    install.module(
        "mine.py",
        "DECLARED = declare.Loss(version=1)\ndef mine(student, teacher): ...\ndef unused(student, teacher): ...\n",
    )
    found = needs_of(plan({"objective.loss": "mine", "runtime.engine": "other"}).grid, trains=True)
    assert {(need.field, need.kind, need.name, need.lack()) for need in found} == {
        ("objective.loss", "distribution", "kdray-example==0.1.0", ""),
        ("runtime.engine", "distribution", "kdray-example==0.1.0", ""),
    }
    (install.site / "kdray_example-0.1.0.dist-info" / "METADATA").write_text("Name: kdray-example\nVersion: 0.2.0\n")
    assert found[0].lack() == "kdray-example is installed as 0.2.0, not as 0.1.0"
    shutil.rmtree(install.site / "kdray_example-0.1.0.dist-info")
    assert found[0].lack() == "kdray-example 0.1.0 is not installed"


def test_models_that_are_only_scored_need_what_scores_them(plan: MakePlan) -> None:
    made = plan(GREEDY | {"score.metrics": ["chrf"], "train.compile": True}).grid
    only = Grid.only_scoring("x", made.score, made.data.template, None, made.runtime)
    assert [need.name for need in needs_of(only, trains=False)] == ["sacrebleu"]
    require_gpus(only, "without a GPU", trains=False)


def test_a_gpu_that_is_hidden_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(module.Path, "glob", lambda folder, name: iter([folder / name] if name == "kfd" else []))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert module.has_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not module.has_gpu()
    monkeypatch.setattr(module.Path, "glob", lambda folder, name: iter([]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert not module.has_gpu()


@pytest.mark.slow
def test_looking_loads_nothing_heavy() -> None:
    code = (
        "import sys; from kdray.check.machine import Need, ray_accelerators; ray_accelerators();"
        "[Need('a', 'package', name, '').lack() for name in ('bitsandbytes', 'vllm', 'nltk', 'torch')];"
        "assert not {'ray', 'torch', 'nltk', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
