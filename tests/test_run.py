"""A small real grid through Ray Tune, Ray Train and Ray Data; killed in the middle and started again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml

from kdray import results as kdray_results
from kdray.artifacts.curve import read_curve
from kdray.artifacts.scores import read_scores
from kdray.plan import make_plan
from kdray.spec import InputError, load_grid
from kdray.store import Outer, Store
from tests.here import run_here
from tests.tiny import write_grid

pytestmark = [pytest.mark.ray, pytest.mark.slow]
POINTS = {  # three: one is left to start when the first two, of which both cores are full, have ended
    "axes": "{lr: [3.0e-3, 1.0e-3], batch: [4], alpha: [0, 1]}",
    "exclude": "[{lr: 1.0e-3, batch: 4, alpha: 0}]",
    "train": "{steps: 80, keep: [40, 80]}",
}
MAIN = "from kdray.cli import main; main()"
CANARY = "canary-2f9c41d7"  # in the place of every secret that a user may have set
SECRETS = ("HF_TOKEN", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY")


STARTED = []


def kdray(*arguments, **options):
    command = [sys.executable, "-c", MAIN, *map(str, arguments)]
    STARTED.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options))
    return STARTED[-1]


@pytest.fixture(autouse=True)
def nothing_runs_on():
    """A test that fails leaves no run behind for the next ones to share the machine with."""
    yield
    while STARTED:
        STARTED.pop().kill()


def finish(process, seconds=400):
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output


def planned(path):
    grid = load_grid(path)
    store = Store(grid.runtime.store)
    return make_plan(grid, Outer(store.root)), store


def scores(path):
    plan, store = planned(path)
    return {step.measure.id: read_scores(store.get(step.measure.key).path) for step in plan.scores}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A grid that ran through in this process, which pipelines and Tune trials it used, and what actors did."""
    import ray.data
    from ray import tune

    from kdray.orchestration.crew import Crew

    path = write_grid(tmp_path_factory.mktemp("undisturbed"), **POINTS)
    seen = {"pipelines": set(), "makers": [], "trials": 0}
    with pytest.MonkeyPatch.context() as patch:
        map_batches, start, fit = ray.data.Dataset.map_batches, Crew.start, tune.Tuner.fit

        def spy_on_data(self, fn, **options):
            seen["pipelines"].add(getattr(fn, "func", fn).__name__)
            return map_batches(self, fn, **options)

        def spy_on_crew(self, make, *how):
            seen["makers"].append(make.func.__name__)
            return start(self, make, *how)

        def spy_on_tune(self):
            results = fit(self)
            seen["trials"] += len(results)
            return results

        patch.setattr(ray.data.Dataset, "map_batches", spy_on_data)
        patch.setattr(Crew, "start", spy_on_crew)
        patch.setattr(tune.Tuner, "fit", spy_on_tune)
        assert run_here(path)[2] == {}
    return path, seen


def test_every_point_is_a_tune_trial_of_a_torch_trainer_and_all_else_is_ray_data(undisturbed):
    path, seen = undisturbed
    plan, store = planned(path)
    assert seen["trials"] == len(plan.points) == 3
    assert seen["pipelines"] == {"tokenise_slice", "_Actor"}
    assert seen["makers"][0] == "Softener"
    assert set(seen["makers"][1:]) == {"Scorer"}  # one beside points, and maybe another after them
    trials = set()
    for point in plan.points:
        facts = store.get(point.train.key).facts
        trials.add(facts["tune_trial"])
        assert facts["train_run"] == "attempt-001"  # as Ray Train's own context named it in the worker
    assert len(trials) == 3


def test_a_finished_grid_is_whole_and_verifies(undisturbed):
    plan, store = planned(undisturbed[0])
    for step in plan.steps():
        assert step.state(store) == "done", step
        assert store.verify(step.id) == []
        assert store.record(step.id) == step.payload
        left = [p.name for p in store.folder(step.key).iterdir() if p.name.startswith(("lock", "attempt"))]
        assert left == ["attempt-001"], (step, left)
    for point in plan.points:
        names = {p.name for p in store.get(point.train.key).path.iterdir()}
        assert not any(name.startswith("checkpoint-") for name in names), "resume state outlived its point"


def test_its_tables_hold_every_score_and_item(undisturbed):
    path, _ = undisturbed
    table = kdray_results(path)
    frame, items = table.frame(), table.items()
    assert len(frame) == sum(map(len, scores(path).values()))
    assert set(frame.arm.dropna()) == {"SFT", "KD 1"}
    assert frame[frame.checkpoint == 80].final.all()
    keys = ["model", "checkpoint", "metric"]
    means = items[items.metric == "rougeL"].groupby(keys, dropna=False).value.mean().rename("mean").reset_index()
    both = frame.merge(means, on=keys)
    assert len(both) == 3 * 2 + 2
    assert both.value.to_numpy() == pytest.approx(both["mean"].to_numpy())
    assert set(items.item[items.task == "heldout_loss"]) >= set(
        items.item[items.task == "heldout_answers"]
    )  # the same rows


def test_training_learned_and_the_last_export_is_a_plain_model(undisturbed):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    plan, store = planned(undisturbed[0])
    losses = {
        s.subject if isinstance(s.subject, str) else s.measure.slug: scores(undisturbed[0])[s.measure.id]
        for s in plan.scores
        if s.task.name == "heldout_loss"
    }
    untrained = losses.pop("student")["ce"].value
    teacher = losses.pop("teacher")
    assert teacher["kl"].value == pytest.approx(0, abs=1e-3)  # soft labels are kept in bfloat16
    assert all(loss["ce"].value < untrained - 0.3 for loss in losses.values())
    folder = store.get(plan.points[-1].exports[80.0].key).path
    AutoTokenizer.from_pretrained(folder)
    assert AutoModelForCausalLM.from_pretrained(folder).config.num_hidden_layers == 2


def test_the_soft_labels_reach_training(undisturbed):
    plan, store = planned(undisturbed[0])
    for point in plan.points:
        curve = read_curve(store.get(point.train.key))
        assert [entry["step"] for entry in curve] == list(range(1, 81))
        assert [entry["step"] for entry in curve if "heldout_ce" in entry] == [40, 80]
        assert ("soft" in curve[0]) == (point.point.alpha > 0)
        if point.point.alpha > 0:
            assert curve[-1]["heldout_kl"] < curve[39]["heldout_kl"] + 0.05


def test_sigkill_while_training_then_one_point_more(undisturbed, tmp_path):
    path = write_grid(tmp_path, **POINTS)
    plan, store = planned(path)
    for kind in ("model", "prepare", "teach", "soften"):  # what is killed is training
        shutil.copytree(planned(undisturbed[0])[1].root / kind, store.root / kind)
    process = kdray("run", path, cwd=tmp_path)
    finished, halfway = wait_for_a_finished_and_a_running_point(process, plan, store)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    before = {step.id: stamp(store.get(step.key)) for step in plan.steps() if store.get(step.key)}
    assert finished.train.id in before
    assert halfway.train.id not in before
    tree = yaml.safe_load(path.read_text())
    tree["include"] = [{"lr": 2.0e-3, "batch": 4, "alpha": 1}]
    path.write_text(yaml.safe_dump(tree))
    code, output = finish(kdray("run", path, cwd=tmp_path, env=os.environ | dict.fromkeys(SECRETS, CANARY)))
    assert code == 0, output
    left = [file for file in tmp_path.rglob("*") if file.is_file() and CANARY.encode() in file.read_bytes()]
    assert not left, "a secret is in what a run leaves"
    assert CANARY not in output

    grown, _ = planned(path)
    assert len(grown.points) == 4
    assert all(step.state(store) == "done" for step in grown.steps())
    after = {id: stamp(store.find(id)) for id in before}
    assert after == before, "a finished step was done again"
    facts = store.get(halfway.train.key).facts
    assert facts["train_run"] != "attempt-001"
    assert facts["resumed_from_step"] > 0
    theirs = scores(undisturbed[0])
    ours = scores(path)
    assert {id: ours[id] for id in theirs} == theirs
    assert len(ours) == len(theirs) + 4

    code, output = finish(kdray("run", path, cwd=tmp_path), 60)
    assert code == 0
    assert "are done" in output
    assert "starting Ray" not in output


def flip(path):
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])


def test_a_student_that_changes_in_the_store_fails_its_point_and_ends_the_next_run_before_it_works(
    tmp_path, monkeypatch
):
    """A bit of a weight, and one of the settings that its exports take over."""
    overrides = {
        "teacher": "null",
        "axes": "{lr: [3.0e-3], batch: [4], alpha: [0]}",
        "score": "{tasks: [heldout_loss], references: []}",
    }
    path = write_grid(tmp_path, **overrides)

    changed = []

    def damage(_, folders):
        changed.append(folders["student"])
        flip(changed[0] / "model.safetensors")

    monkeypatch.setattr("kdray.run.check_models", damage)
    plan, store, failed = run_here(path)
    point = plan.points[0].train
    weights = changed[0] / "model.safetensors"
    told = f"{weights}: damaged (not what was sealed); remove the folder {weights.parents[1]} and run again"
    assert failed[point.id] == told
    [told] = store.folder(point.key).glob("attempt-*/ended.json")  # by the first worker: its failure is not tried again
    assert json.loads(told.read_text()) == failed[point.id]
    flip(changed[0] / "generation_config.json")
    with pytest.raises(InputError, match=r"generation_config.json: damaged \(not what was sealed\)"):
        run_here(path)
    assert len(changed) == 1


@pytest.mark.parametrize(("sent", "ends_with"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_gently_and_keeps_what_is_finished(tmp_path, sent, ends_with):
    """The first while data are prepared, the second while points train, where Ray's own handler would abort."""
    path = write_grid(tmp_path, **POINTS)
    plan, store = planned(path)
    process = kdray("run", path, cwd=tmp_path)
    wait_until(lambda: store.get(plan.prepare.key), process)
    if sent == signal.SIGINT:
        time.sleep(1)
    else:
        trains = [store.folder(point.train.key) for point in plan.points]
        wait_until(lambda: any(newest_step(at) >= 2 for folder in trains for at in folder.glob("attempt-001")), process)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(sent)
    code, output = finish(process, 120)
    assert code == ends_with, output
    assert "Traceback" not in output
    assert "Stack" not in output, "nor one of C++"
    assert "the same command goes on" in output
    assert store.get(plan.prepare.key)
    assert psutil.wait_procs(family, timeout=60)[1] == [], "nothing runs on"


def test_a_point_that_fails_takes_no_other_with_it(tmp_path):
    one, wild = "{lr: [1.0e-3], batch: [4], alpha: [0]}", "[{lr: 1.0e+30, batch: 4, alpha: 0}]"
    path = write_grid(tmp_path, axes=one, include=wild, teacher="null", score="{tasks: [heldout_loss], references: []}")
    code, output = finish(kdray("run", path, cwd=tmp_path))
    assert code == 1, output
    plan, store = planned(path)
    good, bad = plan.points
    assert store.get(good.train.key)
    assert not store.get(bad.train.key)
    assert "failed train lr1e+30-b4-a0-s0" in output
    assert "loss" in output
    assert all(s.measure.state(store) == "done" for s in plan.scores if s.subject == good.point), output


def stamp(artifact):
    return [(str(path), path.stat().st_mtime_ns) for path in sorted(artifact.folder.rglob("*")) if path.is_file()]


def wait_until(condition, process, seconds=300):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def newest_step(attempt):
    steps = [0]
    for path in attempt.glob("checkpoint-*/manifest.json"):
        with contextlib.suppress(FileNotFoundError):  # two are kept: the oldest may go at any moment
            steps.append(json.loads(path.read_text())["step"])
    return max(steps)


def wait_for_a_finished_and_a_running_point(process, plan, store):
    def look():
        # Early in its run: workers outlive their killed driver by seconds, and must not reach the end in them.
        early = [
            point
            for point in plan.points
            if any(2 <= newest_step(path) <= 20 for path in store.folder(point.train.key).glob("attempt-001"))
        ]
        done = [point for point in plan.points if store.get(point.train.key)]
        running = [point for point in early if point not in done]
        return (done[0], running[0]) if done and running else None

    return wait_until(look, process)
