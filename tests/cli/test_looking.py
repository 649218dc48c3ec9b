"""Commands that look at a grid: what they show, that they write nothing, and that they load nothing heavy."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kdray.models import core
from kdray.plan import make_plan
from kdray.spec import load_grid
from kdray.store import Outer, Store
from tests.cli.real import kdray
from tests.conftest import ROOT, Run, TinyGrid, tree_of
from tests.plan.conftest import seal

GRIDS = sorted((ROOT / "grids").glob("*.yaml"))


def test_looking_at_a_grid_needs_nothing_heavy(tiny_grid: TinyGrid) -> None:
    code = f"""
import sys
from kdray.cli import main
looks = ["plan", "plan --json", "status", "check --offline", "gc --dry-run", "stop", "logs", "release"]
for command in looks:
    points = {["lr0.0001-b2-a0-s0"]!r} if command in ("stop", "logs", "release") else []
    sys.argv = ["kdray", *command.split(), {str(tiny_grid())!r}, *points]
    main()
    heavy = {{"torch", "ray", "transformers", "mlflow", "datasets", "numpy", "pyarrow", "huggingface_hub"}}
    assert not heavy.intersection(sys.modules), (command, heavy.intersection(sys.modules))
import kdray.run  # what a mistake in `kdray run` or `score` must not wait for
assert not heavy.intersection(sys.modules), heavy.intersection(sys.modules)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")


@pytest.mark.slow
def test_without_a_network_the_check_says_so(tiny_grid: TinyGrid) -> None:
    path = tiny_grid({"teacher.model": "hf:org/teacher"})
    answer = kdray("check", path, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="0")
    assert answer.returncode == 2
    assert re.fullmatch(
        r"error teacher\.model: the hub does not give hf:org/teacher \(.+\); check the id, the network.*\n",
        answer.stderr,
    )
    assert kdray("check", path, "--offline").returncode == 0


def test_the_plan_as_json_has_every_step_and_point(run: Run, tiny_grid: TinyGrid) -> None:
    path = tiny_grid()
    before = tree_of(tiny_grid.folder)
    code, stdout, stderr = run("plan", "--json", path)
    shown = json.loads(stdout)
    made = make_plan(load_grid(path), Outer(tiny_grid.folder / "store"))
    assert (code, stderr) == (0, "")
    assert (shown["grid"], shown["store"]) == ("tiny", str(tiny_grid.folder / "store"))
    assert shown["steps"] == [
        {
            "kind": step.kind,
            "slug": step.slug,
            "id": step.id,
            "state": "missing",
            "inputs": {name: needed.id for name, needed in step.inputs.named.items()},
        }
        for step in made.steps()
    ]
    assert [(p["alpha"], p["lr"], p["batch"], p["seed"], p["id"]) for p in shown["points"]] == [
        (p.point.alpha, p.point.lr, p.point.batch, p.point.seed, p.train.id) for p in made.points
    ]
    assert tree_of(tiny_grid.folder) == before


def test_an_unresolved_plan_is_json_too(run: Run, tiny_grid: TinyGrid) -> None:
    shown = json.loads(run("plan", "--json", tiny_grid({"student.model": "hf:org/student"}))[1])
    assert {(step["id"], step["state"]) for step in shown["steps"] if step["kind"] == "train"} == {(None, "unresolved")}


def test_the_table_of_the_plan_shows_ids_and_states(run: Run, tiny_grid: TinyGrid) -> None:
    path = tiny_grid()
    made = make_plan(load_grid(path), Outer(tiny_grid.folder / "store"))
    seal(Store(tiny_grid.folder / "store"), made.prepare)
    _, stdout, _ = run("plan", path)
    assert re.search(rf"prepare +rows +{made.prepare.id} +done", stdout)
    assert re.search(rf"teach +teacher-lora +{made.models['teacher'].id} +missing", stdout)


def test_a_plan_is_shown_in_columns(run: Run, tiny_grid: TinyGrid) -> None:
    code, stdout, _ = run("plan", tiny_grid())
    header, *lines, epochs = stdout.splitlines()
    assert epochs == "steps an epoch: known once the data are prepared"
    assert (code, header.split()) == (0, ["step", "name", "id", "state", "size"])
    assert {len(line) for line in lines} == {len(header)}
    steps = list(make_plan(load_grid(tiny_grid()), Outer(tiny_grid.folder / "store")).steps())
    assert [line.split()[:4] for line in lines] == [[step.kind, step.slug, step.id, "missing"] for step in steps]
    assert {line.index(" missing ") for line in lines} == {header.index(" state ")}


def test_a_plan_says_how_many_steps_an_epoch_has(run: Run, tiny_grid: TinyGrid) -> None:
    path = tiny_grid({"axes.batch": [8, 16]})
    made = make_plan(load_grid(path), Outer(tiny_grid.folder / "store"))
    assert made.prepare
    attempt = Store(tiny_grid.folder / "store").begin(made.prepare.key, made.prepare.payload or {})
    attempt.seal([], train=11424)
    assert run("plan", path)[1].splitlines()[-1] == "steps an epoch of 11,424 rows: 1428 at batch 8, 714 at batch 16"
    assert json.loads(run("plan", "--json", path)[1])["training_rows"] == 11424


SIZES = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 16, "vocab_size": 50}


def test_a_plan_says_what_is_left_to_pay(run: Run, tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ("student", "teacher"):
        config = tiny_grid.folder / role / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | SIZES))
    path = tiny_grid()
    assert "GPU-hours" not in run("plan", path)[1]  # nobody asked, and it runs on a laptop
    _, stdout, stderr = run("plan", path, "--card", "a100", "--gpus", 8, "--price", 2, "--rows", 1000)
    assert stderr == ""
    assert re.search(
        r"^price of what is left, 1,000 rows of [\d]+ tokens taken to be like Dolly's, on A100 ", stdout, re.MULTILINE
    )
    assert re.search(r"^  all +[\d.]+ GPU-hours, [\d.]+ hours on 8 GPUs, [\d]+ USD", stdout, re.MULTILINE)
    monkeypatch.setattr(core, "LONG", 0.01)
    _, stdout, _ = run("plan", path, "--card", "cpu", "--gpus", 3, "--rows", 1000)
    assert re.search(r"^  all +[\d.,]+ core-minutes, [\d.,]+ minutes on 3 cores;", stdout, re.MULTILINE)
    cost = json.loads(run("plan", path, "--rows", 1000, "--json")[1])["cost"]
    assert (cost["card"], cost["gpus"], cost["usd"], cost["rows"]["train"]) == ("H100", 1, None, 1000)
    assert json.loads(run("plan", path, "--json")[1])["cost"] == {
        "unknown": ["data: the number of rows, until they are prepared; say it by --rows"]
    }


def test_a_price_on_an_unknown_card_is_refused(run: Run, tiny_grid: TinyGrid) -> None:
    code, stdout, stderr = run("plan", tiny_grid(), "--card", "H1000")
    assert (code, stdout) == (2, "")
    assert stderr == "error --card: 'H1000'; did you mean 'H100'? (known: A100, CPU, H100, H200, RTX4090)\n"


def test_status_counts_steps_by_state(run: Run, tiny_grid: TinyGrid) -> None:
    path = tiny_grid()
    made = make_plan(load_grid(path), Outer(tiny_grid.folder / "store"))
    seal(Store(tiny_grid.folder / "store"), made.prepare, made.points[0].train)
    shown = json.loads(run("status", "--json", path)[1])
    assert shown["steps"]["prepare"] == {"done": 1}
    assert shown["steps"]["train"] == {"done": 1, "missing": 3}
    assert [point["state"] for point in shown["points"]] == ["done", "missing", "missing", "missing"]


def test_why_names_the_field_that_differs(run: Run, tiny_grid: TinyGrid) -> None:
    made = make_plan(load_grid(tiny_grid()), Outer(tiny_grid.folder / "runs" / "tiny"))
    store = Store(tiny_grid.folder / "runs" / "tiny")
    one, other = seal(store, *(point.train for point in made.points[:2]))
    for options in ([], ["--store", store.root]):
        assert run("why", one.key.id, other.key.id, *options) == (0, "lr: 0.0001 | 0.001\n", "")
        assert run("why", one.key.id, one.key.id, *options) == (0, "the same\n", "")


@pytest.mark.parametrize("path", GRIDS, ids=[path.name for path in GRIDS])
def test_every_shipped_grid_can_be_run(path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    if "device: gpu" in path.read_text():
        assert "error runtime.device: gpu, but this machine has none" in run("check", "--offline", path)[2]
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265")  # it is to be submitted
    code, stdout, stderr = run("check", "--offline", path)
    assert (code, stderr) == (0, "")
    assert re.search(r"fine, \d+ points", stdout)
