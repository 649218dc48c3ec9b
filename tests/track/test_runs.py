from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdray.artifacts.curve import write_curve
from kdray.report.results import collect
from kdray.spec.points import Point
from kdray.store import Control, Locks
from kdray.track.runs import Entry, WantedRun, wanted_runs
from kdray.track.view import shared_view
from tests.track.bench import END, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def wanted(bench: Bench) -> dict[str, WantedRun]:
    return {run.name: run for run in wanted_runs(collect(bench.plan, bench.store), bench.store)}


def finals(run: WantedRun) -> dict[str, float]:
    return {name: value for entry in run.entries if entry.step == 0 for name, value in entry.values.items()}


def test_curves_are_over_examples_seen(bench: Bench) -> None:
    bench.begin(0.1, steps=2)
    run = wanted(bench)["a0.1 lr3e-4 b2 s0"]
    assert run.entries == [
        Entry(2, {"train/loss": 3.0, "train/ce": 2.5, "train/soft": 3.0, "train/lr": 3e-4, "train/grad_norm": 1.0}),
        Entry(
            4,
            {
                "train/loss": 2.0,
                "train/ce": 1.5,
                "train/soft": 3.0,
                "train/lr": 1.5e-4,
                "train/grad_norm": 1.0,
                "ckpt/heldout_ce": 3.0,
                "ckpt/heldout_kl": 0.5,
            },
        ),
    ]


def test_long_curves_are_thinned_the_same_way_however_long_they_get(bench: Bench) -> None:
    attempt = bench.begin(0.1)

    def shown(steps: int) -> list[int]:
        lines = [{"step": i, "examples": 2 * i, "tokens": 9, "loss": 1.0, "ce": 1.0} for i in range(1, steps + 1)]
        lines[1026]["heldout_ce"] = 2.0
        write_curve(attempt.path, lines)
        return [entry.step // 2 for entry in wanted(bench)["a0.1 lr3e-4 b2 s0"].entries]

    steps = shown(5000)
    assert steps[:256] == [*range(1, 257)]
    assert [step for step in steps if 256 < step <= 1024] == [*range(258, 513, 2), *range(516, 1025, 4)]
    assert 1027 in steps
    assert len(steps) == 256 + 4 * 128 + (5000 - 4096) // 32 + 1
    assert shown(1500) == [step for step in steps if step <= 1500]


def test_only_finite_numbers(bench: Bench) -> None:
    attempt = bench.begin(0, steps=0)
    alike = {"step": 1, "tokens": 9, "ce": float("nan")}
    steps = [
        alike | {"loss": 1.0, "grad_norm": float("inf"), "examples": 2},
        alike | {"loss": float("nan"), "examples": 4},
    ]
    write_curve(attempt.path, steps)
    assert wanted(bench)["sft lr3e-4 b2 s0"].entries == [Entry(2, {"train/loss": 1.0})]


def test_final_metrics_wait_for_the_final_checkpoint(bench: Bench) -> None:
    bench.train(0)
    point = bench.point(0).point
    bench.measure(point, 2.0, 9.0)
    run = wanted(bench)["sft lr3e-4 b2 s0"]
    assert finals(run) == {}
    assert Entry(4, {"ckpt/held_rougeL": 9.0}) in run.entries
    bench.measure(point, END, 10.0, task="heldout_answers")
    assert finals(wanted(bench)["sft lr3e-4 b2 s0"]) == {"held_rougeL": 10.0, "held_empty": 11.0}


def test_scores_of_an_export_that_is_gone_have_no_place_on_the_axis(bench: Bench) -> None:
    bench.begin(0, steps=0)
    bench.measure(bench.point(0).point, END, 10.0, task="heldout_loss")
    assert wanted(bench)["sft lr3e-4 b2 s0"].entries == [Entry(0, {"held_ce": 10.0}), Entry(0, {"held_kl": 11.0})]


@pytest.mark.parametrize("chosen", ["best_heldout", "best_answers"])
def test_the_best_checkpoint_is_final_once_all_are_scored(bench: Bench, chosen: str) -> None:
    """A final metric that moved with every new score could not be taken back."""
    bench.changes["report"] = {"checkpoint": chosen}
    bench.train(0)
    point = bench.point(0).point
    bench.measure(point, 2.0, 9.0)
    assert finals(wanted(bench)["sft lr3e-4 b2 s0"]) == {}
    bench.measure(point, END, 10.0)
    assert finals(wanted(bench)["sft lr3e-4 b2 s0"])["held_rougeL"] == 10.0  # held-out loss falls to the end


def test_status_follows_the_store(bench: Bench) -> None:
    assert wanted(bench) == {}
    bench.begin(0, steps=1)
    bench.begin(0.1, steps=0)
    with Locks() as locks:
        assert locks.try_acquire(bench.store.folder(bench.point(0).train.key))
        seen = {name: run.status for name, run in wanted(bench).items()}
    assert seen == {"sft lr3e-4 b2 s0": "RUNNING", "a0.1 lr3e-4 b2 s0": "FAILED"}
    bench.train(0)
    assert wanted(bench)["sft lr3e-4 b2 s0"].status == "FINISHED"


def test_a_point_that_a_search_has_stopped_is_no_failure(bench: Bench) -> None:
    bench.begin(0, steps=2)
    control, id = Control(bench.store.root), str(bench.point(0).train.id)
    control.stop(id, early="held-out loss 3.2")
    run = wanted(bench)["sft lr3e-4 b2 s0"]
    assert (run.status, run.tags["kdray.stopped_early"]) == ("KILLED", "held-out loss 3.2")
    control.unstop([id])
    run = wanted(bench)["sft lr3e-4 b2 s0"]
    assert (run.status, run.tags["kdray.stopped_early"]) == ("FAILED", "")


def test_a_claimed_point_without_a_step_has_no_run_yet(bench: Bench) -> None:
    bench.begin(0, steps=0)
    with Locks() as locks:
        assert locks.try_acquire(bench.store.folder(bench.point(0).train.key))
        assert wanted(bench) == {}
    assert list(wanted(bench)) == ["sft lr3e-4 b2 s0"]  # given up


def test_params_are_the_axes_and_references_have_none_of_the_axes(bench: Bench) -> None:
    bench.finish()
    runs = wanted(bench)
    axes = {"alpha": "0.1", "batch": "2", "labels": "gold", "lr": "0.0003", "seed": "0"}
    assert runs["a0.1 lr3e-4 b2 s0"].params == {"family": "toy", **axes}
    assert runs["teacher"].params == runs["untrained student"].params == {"family": "toy"}
    kinds = {name: run.tags["kdray.kind"] for name, run in runs.items()}
    assert kinds == {
        "sft lr3e-4 b2 s0": "sft",
        "a0.1 lr3e-4 b2 s0": "kd",
        "untrained student": "reference",
        "teacher": "reference",
    }
    assert finals(runs["teacher"])["held_rougeL"] == 5.0


def test_a_model_that_teaches_itself_is_two_references(bench: Bench) -> None:
    bench.changes |= {"teacher": {"model": f"file:{bench.folder}/student"}}
    bench.finish()
    references = [run.identity for run in wanted(bench).values() if run.identity.startswith("reference")]
    assert len(set(references)) == 2


@pytest.mark.parametrize(
    ("point", "name"),
    [
        (Point(alpha=0, lr=1e-5, batch=8, seed=1), "sft lr1e-5 b8 s1"),
        (Point(alpha=10, lr=0.5, batch=128, seed=12), "a10 lr0.5 b128 s12"),
        (Point(alpha=0.01, lr=1.5e-5, batch=32, seed=0), "a0.01 lr1.5e-5 b32 s"),
        (Point(alpha=0, lr=3e-4, batch=4, seed=0, labels="teacher"), "seq lr3e-4 b4 s0"),
        (Point(alpha=1, lr=3e-4, batch=4, seed=0, labels="both"), "both a1 lr3e-4 b4 s0"),
        (Point(alpha=1, lr=3e-4, batch=4, seed=0, labels="student", on_policy=0.5), "onp0.5 a1 lr3e-4 b4"),
    ],
)
def test_names_fit_the_list_of_runs(bench: Bench, point: Point, name: str) -> None:
    axes = {name: [value] for name, value in vars(point).items() if value != ""}
    if point.samples:
        bench.changes["soft_labels"] = {"form": "online"}
    else:
        del axes["on_policy"]
    bench.changes["axes"] = axes
    bench.begin(point.alpha)
    assert list(wanted(bench)) == [name]
    assert len(name) <= 20


def test_labels_are_told_apart(bench: Bench) -> None:
    bench.changes["axes"] = {"lr": [3e-4], "batch": [2], "alpha": [0], "labels": ["gold", "teacher", "both"]}
    for planned in bench.plan.points:
        bench.store.begin(planned.train.key, planned.train.payload or {})
    runs = wanted(bench)
    assert {name: (run.params["labels"], run.tags["kdray.kind"]) for name, run in runs.items()} == {
        "sft lr3e-4 b2 s0": ("gold", "sft"),
        "seq lr3e-4 b2 s0": ("teacher", "seqkd"),
        "both lr3e-4 b2 s0": ("both", "seqkd"),
    }
    state = json.loads(shared_view(bench.plan))
    assert state["compareRunCharts"][0]["selectedParams"] == ["lr", "batch", "alpha", "labels"]
    assert "params.`labels`" in state["selectedColumns"]


def test_the_view_is_about_the_primary_metric(bench: Bench) -> None:
    state = json.loads(shared_view(bench.plan))
    by_type = {chart["type"]: chart for chart in reversed(state["compareRunCharts"])}
    assert by_type["PARALLEL"]["selectedParams"] == ["lr", "batch", "alpha"]
    assert by_type["PARALLEL"]["selectedMetrics"] == ["held_rougeL"]
    assert by_type["SCATTER"]["xaxis"]["key"] == "alpha"
    bars = [chart["metricKey"] for chart in state["compareRunCharts"] if chart["type"] == "BAR"]
    assert bars == ["held_rougeL", "held_ce", "held_kl"]
    assert state["orderByAsc"] is False
    assert "labels" not in json.dumps(state)
    bench.changes["report"] = {"primary": "heldout_loss/kl"}
    lower = json.loads(shared_view(bench.plan))
    assert (lower["orderByKey"], lower["orderByAsc"]) == ("metrics.`held_kl`", True)


def test_the_view_may_be_about_a_factual_rate(bench: Bench) -> None:
    bench.changes["lens"] = {"annotations": "jsonl", "source": f"file:{bench.folder}/rows.jsonl"}
    bench.changes["score.tasks"] = ["heldout_loss", {"name": "xsum", "source": f"file:{bench.folder}/xsum.jsonl"}]
    bench.changes["report"] = {"primary": "xsum/fr"}
    state = json.loads(shared_view(bench.plan))
    bars = [chart["metricKey"] for chart in state["compareRunCharts"] if chart["type"] == "BAR"]
    assert bars == ["xsum_fr", "held_ce", "held_kl", "xsum_rougeL"]


def test_a_metric_that_is_not_resolved_yet_is_no_fault(bench: Bench) -> None:
    """It came into the grid file later, and its model was never asked for."""
    bench.finish()
    before = wanted(bench)
    bench.changes |= {"score.metrics": ["hhem"]}
    after = wanted(bench)
    assert {name: run.files.keys() for name, run in after.items()} == {n: run.files.keys() for n, run in before.items()}
