"""The mirror against a real MLflow on sqlite; what it wrote is read from the file, not through MLflow."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from kdray.artifacts.curve import append_step, curve_file
from kdray.track import connection, mirror
from kdray.track.connection import TrackingError
from kdray.track.mirror import Mirror
from kdray.track.view import VIEW_TAG
from tests.track.bench import END, Bench

pytestmark = pytest.mark.slow  # a new MLflow database each

CURVE_ROWS = 4 * 4 + 2 * 2  # loss, ce, lr, gradient norm of four steps, two held-out numbers at two of them
SCORE_ROWS = 3 * 4  # four metrics at two checkpoints and as final
ALL_ROWS = 2 * (CURVE_ROWS + SCORE_ROWS) + 4 + 2 * 4  # soft cross-entropy of one point; the references' metrics


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every update looks at the store, however soon it comes."""
    monkeypatch.setattr(mirror, "REST", 0.0)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[list[Metric]]:
    """The metrics of every request."""
    sent: list[list[Metric]] = []
    real = MlflowClient.log_batch

    def log_batch(self: MlflowClient, run_id: str, metrics: Any = (), **rest: Any) -> Any:
        if metrics:
            sent.append(list(metrics))
        return real(self, run_id, metrics=metrics, **rest)

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    return sent


def client(bench: Bench) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{bench.database}")


def run_id(bench: Bench, alpha: float) -> str:
    return bench.runs()[str(bench.point(alpha).train.id)][0]


def test_a_finished_grid(bench: Bench) -> None:
    bench.finish()
    Mirror(bench.plan, bench.store).finish()
    assert {(name, status) for _, name, status in bench.runs().values()} == {
        ("sft lr3e-4 b2 s0", "FINISHED"),
        ("a0.1 lr3e-4 b2 s0", "FINISHED"),
        ("untrained student", "FINISHED"),
        ("teacher", "FINISHED"),
    }
    assert bench.of("params", 0.1) == {
        "alpha": "0.1",
        "batch": "2",
        "family": "toy",
        "labels": "gold",
        "lr": "0.0003",
        "seed": "0",
    }
    latest = bench.of("latest_metrics", 0.1)
    assert (latest["held_rougeL"], latest["ckpt/held_rougeL"], latest["train/loss"]) == (10.1, 10.1, 0.0)
    rows = bench.rows()
    assert len(rows) == ALL_ROWS
    assert all(delay == step for _, _, step, _, delay in rows)
    point = bench.point(0).train.id
    assert [(step, value) for run, key, step, value, _ in rows if (run, key) == (point, "ckpt/held_rougeL")] == [
        (4, 9.0),
        (8, 10.0),
    ]
    assert {step for run, key, step, _, _ in rows if (run, key) == (point, "train/loss")} == {2, 4, 6, 8}
    tags = bench.of("tags", 0)
    assert (tags["kdray.kind"], tags["kdray.grid"], tags["kdray.in_grid"], tags["kdray.workers"]) == (
        "sft",
        "bench",
        "true",
        "1",
    )
    notes = dict(bench.sql("SELECT key, value FROM experiment_tags"))
    assert notes["mlflow.note.content"] == "Does it work?"
    assert notes[VIEW_TAG].startswith("{")


def test_again_is_the_same(bench: Bench) -> None:
    bench.finish()
    first = Mirror(bench.plan, bench.store)
    first.update()
    rows, runs = bench.rows(), bench.runs()
    first.update()
    first.finish()
    Mirror(bench.plan, bench.store).update()
    Mirror(bench.plan, bench.store).finish()
    assert bench.rows() == rows
    assert bench.runs() == runs
    assert bench.runs("deleted") == {}


def test_only_what_is_new_is_sent(bench: Bench, requests: list[list[Metric]]) -> None:
    attempt = bench.begin(0, steps=2)
    view = Mirror(bench.plan, bench.store)
    view.update()
    assert {metric.step for metric in requests.pop()} == {2, 4}
    view.update()
    assert requests == []
    append_step(attempt.path, {"loss": 0.5, "ce": 0.5, "step": 3, "examples": 6, "tokens": 30})
    with curve_file(attempt.path).open("a") as file:
        file.write('{"loss": 0.')  # the last line is still being written
    view.update()
    assert [[(m.key, m.step, m.value) for m in request] for request in requests] == [
        [("train/loss", 6, 0.5), ("train/ce", 6, 0.5)]
    ]
    requests.clear()
    Mirror(bench.plan, bench.store).update()
    assert requests == []


def test_long_curves_go_in_batches(bench: Bench, requests: list[list[Metric]]) -> None:
    bench.begin(0, steps=600)
    Mirror(bench.plan, bench.store).update()
    assert sum(map(len, requests)) == len(bench.rows()) == (256 + 172) * 4 + 300 * 2  # thinned
    assert max(map(len, requests)) <= 1000
    steps = [{metric.step for metric in request} for request in requests]
    assert all(not a & b for a, b in itertools.pairwise(steps)), "an entry was torn apart"


def test_a_chart_is_looked_up_by_its_runs(bench: Bench) -> None:
    """As MLflow asks for one. An sqlite that does not know what there is reads the metric of all runs."""
    for point in bench.plan.points:
        bench.begin(point.point.alpha, steps=600)
    Mirror(bench.plan, bench.store).update()
    asked = "SELECT * FROM metrics WHERE run_uuid IN (?, ?) AND key = ? AND step IN (?, ?, ?)"
    [*_, how] = bench.sql(f"EXPLAIN QUERY PLAN {asked} ORDER BY run_uuid, step, timestamp, value LIMIT 9", *"abcdef")[0]
    assert "(run_uuid=? AND key=? AND step=?)" in how


def test_scores_appear_one_by_one(bench: Bench) -> None:
    bench.train(0)
    view = Mirror(bench.plan, bench.store)
    view.update()
    assert "held_rougeL" not in bench.of("latest_metrics", 0)
    bench.measure(bench.point(0).point, END, 10.0, task="heldout_answers")
    view.update()
    assert bench.of("latest_metrics", 0)["held_rougeL"] == 10.0
    assert "held_ce" not in bench.of("latest_metrics", 0)


def test_a_resumed_point_stays_one_run(bench: Bench) -> None:
    bench.begin(0, steps=3)
    Mirror(bench.plan, bench.store).update()
    run = run_id(bench, 0)
    assert bench.runs()[str(bench.point(0).train.id)][2] == "FAILED"
    bench.train(0)
    Mirror(bench.plan, bench.store).update()
    assert run_id(bench, 0) == run
    assert bench.runs()[str(bench.point(0).train.id)][2] == "FINISHED"
    assert len(bench.rows()) == CURVE_ROWS


def test_a_resumed_point_with_other_numbers_is_written_anew(bench: Bench) -> None:
    bench.begin(0, steps=3)
    view = Mirror(bench.plan, bench.store)
    view.update()
    run = run_id(bench, 0)
    bench.train(0, shift=0.01)
    view.update()
    assert run_id(bench, 0) != run
    assert list(bench.runs("deleted")) == [bench.point(0).train.id]
    losses = [(step, value) for _, key, step, value, _ in bench.rows() if key == "train/loss"]
    assert losses == [(2, 3.01), (4, 2.01), (6, 1.01), (8, 0.01)]


def test_a_changed_task_replaces_the_final_metrics(bench: Bench) -> None:
    """MLflow shows the larger of two values logged at one step: a lower new score must not be hidden by the old one."""
    bench.finish()
    Mirror(bench.plan, bench.store).finish()
    run = run_id(bench, 0)
    client(bench).set_tag(run, "mlflow.note.content", "odd")
    client(bench).update_run(run, name="my favourite")
    bench.changes["score.tasks"] = ["heldout_loss", {"name": "heldout_answers", "limit": 4}]
    bench.measure(bench.point(0).point, END, 1.0, task="heldout_answers")
    bench.measure("teacher", None, 2.0, task="heldout_answers")
    Mirror(bench.plan, bench.store).finish()
    teacher = [value for run, key, _, value, _ in bench.rows() if "teacher" in run and key == "held_rougeL"]
    assert teacher == [2.0]
    assert run_id(bench, 0) != run
    assert bench.of("latest_metrics", 0)["held_rougeL"] == 1.0
    assert bench.of("tags", 0)["mlflow.note.content"] == "odd"
    assert bench.runs()[str(bench.point(0).train.id)][1:] == ("my favourite", "FINISHED")


def test_a_changed_grid_keeps_its_runs(bench: Bench) -> None:
    bench.finish()
    Mirror(bench.plan, bench.store).finish()
    before, left_out = bench.runs(), str(bench.point(0.1).train.id)
    rows = len(bench.rows())
    bench.changes["axes"] = {"lr": [3e-4], "batch": [2], "alpha": [0, 1]}
    bench.train(1)
    Mirror(bench.plan, bench.store).finish()
    assert {identity: run for identity, run in bench.runs().items() if identity in before} == before
    assert set(bench.runs()) - set(before) == {bench.point(1).train.id}
    assert len(bench.rows()) == rows + CURVE_ROWS + 4
    in_grid = dict(bench.sql("SELECT run_uuid, value FROM tags WHERE key = 'kdray.in_grid'"))
    assert [run for run, value in in_grid.items() if value == "false"] == [before[left_out][0]]
    bench.changes["axes"] = {"lr": [3e-4], "batch": [2], "alpha": [0, 0.1]}
    Mirror(bench.plan, bench.store).finish()
    assert bench.of("tags", 0.1)["kdray.in_grid"] == "true"


def test_a_renamed_family_is_taken_over(bench: Bench) -> None:
    """MLflow refuses to change a param; the family is one, and not part of a point's id."""
    bench.finish()
    Mirror(bench.plan, bench.store).finish()
    bench.changes["family"] = "other"
    Mirror(bench.plan, bench.store).finish()
    assert bench.of("params", 0)["family"] == "other"
    assert len(bench.rows()) == ALL_ROWS


def test_of_two_runs_of_a_point_the_older_stays(bench: Bench) -> None:
    bench.finish()
    Mirror(bench.plan, bench.store).finish()
    runs = bench.runs()
    ((experiment,),) = bench.sql("SELECT experiment_id FROM experiments WHERE name = 'bench'")
    twin = client(bench).create_run(str(experiment), tags={"kdray.point": str(bench.point(0).train.id)})
    Mirror(bench.plan, bench.store).finish()
    assert bench.runs() == runs
    assert bench.runs("deleted")[str(bench.point(0).train.id)][0] == twin.info.run_id


def test_two_drivers_that_make_a_run_at_once_share_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.finish()
    others = [Mirror(bench.plan, bench.store) for _ in range(2)]
    for other in others:
        other._connect()  # neither knows of a run
    for other in reversed(others):
        other._client = client(bench)
        other.finish()
    assert len(bench.runs()) == 4  # of which none is there twice
    assert len(bench.rows()) == ALL_ROWS


def finish_elsewhere(bench: Bench) -> str:
    """In a process that has not had the file open. Returns what is wrong."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(finish, bench).result()


def finish(bench: Bench) -> str:
    try:
        Mirror(bench.plan, bench.store).finish()
    except TrackingError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("left", [0, 60, 4096, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_told_and_made_anew(left: float, bench: Bench) -> None:
    bench.finish()
    assert not finish_elsewhere(bench)
    good = bench.database.read_bytes()
    bench.database.write_bytes(good[: int(left * len(good) if left < 1 else left)])
    if left:
        said = finish_elsewhere(bench)
        assert said == f"{bench.database} is damaged, database disk image is malformed: remove it"
        bench.database.unlink()
        for journal in ("-wal", "-shm"):  # as a driver that was killed leaves them
            bench.database.with_name(f"mlflow.db{journal}").write_bytes(b"of another file" * 1000)
    assert not finish_elsewhere(bench)
    assert len(bench.rows()) == ALL_ROWS


def test_what_was_thrown_away_comes_back(bench: Bench) -> None:
    bench.train(0)
    view = Mirror(bench.plan, bench.store)
    view.finish()
    client(bench).delete_run(run_id(bench, 0))
    bench.finish()
    with pytest.raises(TrackingError, match="active"):  # it remembers the run, and has new scores for it
        view.finish()
    view.finish()
    rows = bench.rows()
    assert len(rows) == ALL_ROWS
    ((experiment,),) = bench.sql("SELECT experiment_id FROM experiments WHERE name = 'bench'")
    client(bench).delete_experiment(str(experiment))
    Mirror(bench.plan, bench.store).finish()
    assert [row[1:4] for row in bench.rows()] == [row[1:4] for row in rows]


def test_two_threads(bench: Bench) -> None:
    bench.finish()
    view = Mirror(bench.plan, bench.store)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(view.update) for _ in range(8)]:
            done.result()
    assert len(bench.rows()) == ALL_ROWS


def test_files_of_a_run(bench: Bench) -> None:
    bench.finish()
    for _ in range(2):
        Mirror(bench.plan, bench.store).finish()
    folder = bench.store.root / "mlartifacts" / run_id(bench, 0.1) / "artifacts"
    scores = json.loads((folder / "scores.json").read_text())["checkpoints"]
    assert [(c["position"], c["examples"], c["scores"]["held_rougeL"]["n"]) for c in scores] == [
        (2.0, 4, 8),
        (4.0, 8, 8),
    ]
    assert json.loads((folder / "record.json").read_text())["params"]["alpha"] == 0.1


def test_a_view_that_is_refused_stops_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> None:
    real = MlflowClient.set_experiment_tag

    def refuse(self: MlflowClient, experiment_id: str, key: str, value: Any) -> None:
        if key == VIEW_TAG:
            raise MlflowException("too long")
        real(self, experiment_id, key, value)

    monkeypatch.setattr(MlflowClient, "set_experiment_tag", refuse)
    bench.finish()
    Mirror(bench.plan, bench.store).finish()
    assert len(bench.rows()) == ALL_ROWS
    assert any("too long" in message for message in logged)


def test_nothing_to_show_makes_no_file(tmp_path: Path) -> None:
    empty = Bench(tmp_path)
    Mirror(empty.plan, empty.store).update()
    Mirror(empty.plan, empty.store).finish()
    assert not empty.store.root.exists()


def test_a_store_that_moves_while_it_is_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.finish()
    view = Mirror(bench.plan, bench.store)
    with monkeypatch.context() as patch:
        patch.setattr(mirror, "collect", lambda *_: (bench.folder / "gone").read_text())
        view.update()
    view.update()
    assert len(bench.rows()) == ALL_ROWS


def test_it_rests_after_a_long_look(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    real = mirror.collect
    monkeypatch.setattr(mirror, "REST", 10.0)
    monkeypatch.setattr(mirror, "collect", lambda *args: (looks.append(1), time.sleep(0.1), real(*args))[2])
    bench.begin(0)
    view = Mirror(bench.plan, bench.store)
    view.update()
    view.update()
    assert len(looks) == 1
    view.finish()
    assert len(looks) == 2


def test_it_rests_after_a_long_write(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes seconds for every request holds up whoever watches the points."""
    writes: list[float] = []
    real = Mirror._write
    monkeypatch.setattr(mirror, "REST", 10.0)
    monkeypatch.setattr(
        Mirror, "_write", lambda view, wanted: (writes.append(1), time.sleep(0.5), real(view, wanted))[2]
    )
    bench.begin(0)
    view = Mirror(bench.plan, bench.store)
    view.update()
    view.update()
    assert len(writes) == 1


def test_a_broken_file_raises_what_the_driver_expects(bench: Bench) -> None:
    bench.finish()
    good = bench.database.read_bytes()
    bench.database.write_bytes(b"not a database" * 100)
    view = Mirror(bench.plan, bench.store)
    with pytest.raises(TrackingError, match=f"^{bench.database} is damaged, file is not a database: remove it$"):
        view.update()
    bench.database.write_bytes(good)
    view.update()  # a minute has not passed
    assert bench.rows() == []
    view.finish()
    assert len(bench.rows()) == ALL_ROWS


def test_a_dead_server_is_given_up_soon(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in connection.ENVIRONMENT:
        monkeypatch.setenv(name, "")  # so that the test leaves none behind
        monkeypatch.delenv(name)
    bench.changes["runtime.mlflow"] = "http://127.0.0.1:9"
    bench.finish()
    view = Mirror(bench.plan, bench.store)
    started = time.monotonic()
    with pytest.raises(TrackingError):
        view.update()
    assert time.monotonic() - started < 30
    view.update()  # rests
    with pytest.raises(TrackingError):
        view.finish()


def test_the_users_patience_is_respected(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    connection.connect(f"sqlite:///{bench.database}")
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"


def test_a_file_made_by_two_at_once(tmp_path: Path) -> None:
    """MLflow's migrations, begun by two processes on one new file, break it for ever."""
    bench = Bench(tmp_path)
    code = f"from kdray.track.connection import connect; connect('sqlite:///{bench.database}')"
    makers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [maker.wait() for maker in makers] == [0, 0]
    assert {path.name for path in bench.store.root.iterdir()} == {"mlflow.db", ".mlflow.db.flock"}
    assert bench.sql("PRAGMA journal_mode") == [("wal",)]
    bench.finish()
    Mirror(bench.plan, bench.store).finish()
    assert len(bench.rows()) == ALL_ROWS


def test_one_run_has_the_report(bench: Bench) -> None:
    """It is written once the grid is summed up, found again, and tells the verdict of today."""
    bench.finish()
    folder = bench.store.root / "report" / "bench"
    Mirror(bench.plan, bench.store).finish()
    assert not any(identity.startswith("report:") for identity in bench.runs())  # there is none yet
    (folder / "figures").mkdir(parents=True)
    for name in ("report.html", "report.md", "tables.tex", "rating-key.json"):
        (folder / name).write_text("one")
    Mirror(bench.plan, bench.store).finish()
    run, name, status = bench.runs()["report:bench"]
    assert (name, status) == ("report", "FINISHED")
    assert bench.sql("SELECT count(*) FROM metrics WHERE run_uuid = ?", run) == [(0,)]
    [[note]] = bench.sql("SELECT value FROM tags WHERE run_uuid = ? AND key = 'mlflow.note.content'", run)
    assert note.startswith("On held_rougeL, KD 0.1 scores ")
    assert "too small to conclude anything from" in note
    [kept] = bench.store.root.glob(f"mlartifacts/{run}/artifacts/report")
    assert sorted(path.name for path in kept.iterdir()) == [
        "report.html",
        "report.md",
        "tables.tex",
    ]  # and no key of a blind sheet
    (folder / "report.html").write_text("two")
    Mirror(bench.plan, bench.store).finish()
    assert bench.runs()["report:bench"][0] == run
    assert (kept / "report.html").read_text() == "two"
    assert bench.sql("SELECT value FROM tags WHERE run_uuid = ? AND key = 'kdray.in_grid'", run) == [("true",)]


def test_whether_it_is_finished_is_known_without_mlflow(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def finished() -> bool:
        with monkeypatch.context() as patched:
            patched.setattr(mirror, "connect", lambda uri: pytest.fail("MLflow was asked"))
            return Mirror(bench.plan, bench.store).is_finished

    assert not finished()
    bench.finish()
    Mirror(bench.plan, bench.store).update()
    assert not finished(), "it has no files yet, and no report"
    Mirror(bench.plan, bench.store).finish()
    assert finished()
    bench.changes["report"] = bench.changes["report"] | {"checkpoint": "best_heldout"}
    assert not finished()
    Mirror(bench.plan, bench.store).finish()
    assert finished()
    bench.store.reopen(bench.point(0.1).train.key)
    assert not finished()
    bench.train(0.1, shift=1.0)
    assert not finished(), "another curve"
    Mirror(bench.plan, bench.store).finish()
    assert finished()
    os.truncate(bench.database, bench.database.stat().st_size // 2)
    assert not finished()
    bench.database.unlink()
    assert not finished()


def test_what_cannot_be_written_is_not_finished(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.finish()
    shown = Mirror(bench.plan, bench.store)
    monkeypatch.setattr(MlflowClient, "log_artifact", lambda *_: (_ for _ in ()).throw(MlflowException("away")))
    monkeypatch.setattr(MlflowClient, "log_dict", lambda *_: (_ for _ in ()).throw(MlflowException("away")))
    with pytest.raises(TrackingError):
        shown.finish()
    assert not shown.is_finished
