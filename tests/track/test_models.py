"""Checkpoints as logged models of a real MLflow on sqlite."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException

from kdray.track import mirror
from kdray.track.mirror import Mirror
from kdray.track.models import STUDENT_TAG
from tests.track.bench import END, Bench

pytestmark = pytest.mark.slow  # a new MLflow database each


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every update looks at the store, however soon it comes."""
    monkeypatch.setattr(mirror, "REST", 0.0)


def models(bench: Bench) -> list[LoggedModel]:
    client = MlflowClient(tracking_uri=f"sqlite:///{bench.database}")
    [experiment] = client.search_experiments(filter_string="name = 'bench'")
    return list(client.search_logged_models([experiment.experiment_id]))


def scores(model: LoggedModel) -> dict[str, float]:
    return {metric.key: metric.value for metric in model.metrics or []}


def test_every_checkpoint_is_a_model_with_its_scores(bench: Bench) -> None:
    bench.finish()
    Mirror(bench.plan, bench.store).finish()
    found = {model.name: model for model in models(bench)}
    assert sorted(found) == [
        "a0-1-lr3e-4-b2-s0-2",
        "a0-1-lr3e-4-b2-s0-4",
        "sft-lr3e-4-b2-s0-2",
        "sft-lr3e-4-b2-s0-4",
        "teacher",
        "untrained-student",
    ]
    middle, last = found["a0-1-lr3e-4-b2-s0-2"], found["a0-1-lr3e-4-b2-s0-4"]
    assert scores(middle)["ckpt/held_rougeL"] == 9.0
    assert "held_rougeL" not in scores(middle)
    assert scores(last)["ckpt/held_rougeL"] == scores(last)["held_rougeL"] == 10.1
    assert scores(found["teacher"])["held_rougeL"] == 5.0
    point = bench.point(0.1)
    assert last.tags[STUDENT_TAG] == point.exports[END].id
    assert last.source_run_id == bench.runs()[str(point.train.id)][0]
    assert (last.params["alpha"], last.params["lr"]) == ("0.1", "0.0003")
    assert {model.status.name for model in found.values()} == {"READY"}


def test_they_are_made_once_with_their_first_score(bench: Bench) -> None:
    bench.train(0)
    Mirror(bench.plan, bench.store).update()
    assert models(bench) == []
    for alpha in (0, 0.1):
        bench.train(alpha)
        bench.measure(bench.point(alpha).point, END, 7.0)
        Mirror(bench.plan, bench.store).update()
    bench.measure(bench.point(0).point, 2.0, 6.0)
    Mirror(bench.plan, bench.store).update()
    Mirror(bench.plan, bench.store).finish()
    assert len(models(bench)) == 3


def test_models_of_a_run_that_is_written_anew_go_with_it(bench: Bench) -> None:
    bench.finish()
    Mirror(bench.plan, bench.store).update()
    before = {model.model_id for model in models(bench)}
    bench.changes["score.tasks"] = ["heldout_loss", {"name": "heldout_answers", "limit": 7}]
    for planned in bench.plan.points:
        bench.measure(planned.point, 2.0, 1.0)
        bench.measure(planned.point, END, 2.0)
    Mirror(bench.plan, bench.store).update()
    after = models(bench)
    points = [model for model in after if "alpha" in model.params]
    assert len(points) == 4
    assert before.isdisjoint(model.model_id for model in points)
    assert {scores(model)["ckpt/held_rougeL"] for model in points} == {1.0, 2.0}


def test_a_server_that_keeps_none_gets_the_runs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise MlflowException("API request to endpoint /api/2.0/mlflow/logged-models/search failed with error code 404")

    with monkeypatch.context() as old:
        old.setattr(MlflowClient, "search_logged_models", unknown)
        bench.finish()
        Mirror(bench.plan, bench.store).finish()
    assert bench.of("latest_metrics", 0.1)["held_rougeL"] == 10.1
    assert models(bench) == []
    assert any("keeps no logged models" in line for line in logged)
