from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from kdray.spec.grid import Grid
from kdray.spec.load import parse_grid
from kdray.store import Store
from kdray.track.address import serve_command, tracking_uri, view_link
from kdray.track.mirror import Mirror
from tests.conftest import TinyGrid
from tests.track.bench import Bench

pytestmark = pytest.mark.slow  # a new MLflow database each


def grid_at(folder: Path, uri: str | None = None) -> tuple[Grid, Store]:
    grid = parse_grid(TinyGrid(folder).text({"runtime.mlflow": uri}))
    return grid, Store(grid.runtime.store)


def test_the_default_is_an_absolute_sqlite_file_in_the_store(tmp_path: Path) -> None:
    grid, store = grid_at(tmp_path)
    assert tracking_uri(grid, store) == f"sqlite:///{tmp_path}/store/mlflow.db"
    assert tracking_uri(*grid_at(tmp_path, "http://tracker:5000")) == "http://tracker:5000"


def test_the_command_is_short_where_the_store_lies_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid, store = grid_at(tmp_path)
    there = serve_command(grid, store)
    assert (
        there == f"mlflow server --backend-store-uri sqlite:///{tmp_path}/store/mlflow.db --host 127.0.0.1 --port 5000"
    )
    monkeypatch.chdir(tmp_path)
    assert (
        serve_command(grid, store)
        == "mlflow server --backend-store-uri sqlite:///store/mlflow.db --host 127.0.0.1 --port 5000"
    )


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://ada:secret@tracker:5000/ml", "http://tracker:5000/ml"),
        ("https://tracker", "https://tracker"),
        (
            "postgresql://ada:secret@db/ml",
            "mlflow server --backend-store-uri 'postgresql://ada:***@db/ml' --host 127.0.0.1 --port 5000",
        ),
        ("sqlite:////a b.db", "mlflow server --backend-store-uri 'sqlite:////a b.db' --host 127.0.0.1 --port 5000"),
    ],
)
def test_other_addresses_are_shown_without_passwords(uri: str, shown: str, tmp_path: Path) -> None:
    assert serve_command(*grid_at(tmp_path, uri)) == shown


def test_no_link_before_anything_is_tracked(tmp_path: Path, bench: Bench) -> None:
    assert view_link(*grid_at(tmp_path)) is None
    assert view_link(bench.plan.grid, bench.store) is None  # a file without the experiment
    bench.database.write_text("not a database")
    assert view_link(bench.plan.grid, bench.store) is None


def test_the_link_opens_the_grids_experiment(bench: Bench) -> None:
    bench.finish()
    Mirror(bench.plan, bench.store).update()
    ((experiment,),) = bench.sql("SELECT experiment_id FROM experiments WHERE name = 'bench'")
    link = f"http://127.0.0.1:5000/#/experiments/{experiment}/runs?viewStateShareKey=kdray&compareRunsMode=CHART"
    assert view_link(bench.plan.grid, bench.store) == link
    bench.changes["runtime.mlflow"] = f"sqlite:///{bench.database}"  # asked through MLflow itself
    assert view_link(bench.plan.grid, bench.store) == link
    del bench.changes["runtime.mlflow"]
    with closing(sqlite3.connect(bench.database)) as connection, connection:
        connection.execute("DELETE FROM experiment_tags WHERE key LIKE 'mlflow.sharedViewState.%'")
    # A share key that MLflow does not know makes its page turn away.
    assert view_link(bench.plan.grid, bench.store) == link.replace("viewStateShareKey=kdray&", "")


def test_a_dead_server_gives_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert view_link(*grid_at(tmp_path, "http://127.0.0.1:9")) is None


def test_the_default_link_does_not_import_mlflow(bench: Bench) -> None:
    """It would take seconds, at the end of every command."""
    bench.finish()
    Mirror(bench.plan, bench.store).update()
    path = bench.grid(bench.changes)
    code = (
        "import sys; from kdray.spec import load_grid; from kdray.store import Store; from kdray.track.address import"
        f" view_link;grid = load_grid({str(path)!r}); assert view_link(grid, Store(grid.runtime.store)); assert"
        " 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
