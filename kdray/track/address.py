"""Where a grid's MLflow view is kept, and what to type or open to look at it."""

from __future__ import annotations

import os
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from kdray.spec import Grid
from kdray.store import Store
from kdray.track.view import VIEW_KEY, VIEW_TAG

HOST, PORT = "127.0.0.1", 5000
DATABASE = "mlflow.db"


# What a server's environment does not say: it needs none of the processes that run jobs on traces (nine, of 200 MB
# each), and tells nobody of its use.
SERVER = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def tracking_uri(grid: Grid, store: Store) -> str:
    """The grid's own tracking URI, or the sqlite file in its store."""
    return grid.runtime.mlflow or f"sqlite:///{store.root / DATABASE}"


def is_server(uri: str) -> bool:
    return urlsplit(uri).scheme in ("http", "https")


def serve_command(grid: Grid, store: Store) -> str:
    """The command that serves the view, or the address of the server that already does; passwords are left out."""
    uri = tracking_uri(grid, store)
    if is_server(uri):
        return _without_password(uri)
    if not grid.runtime.mlflow and store.root.is_relative_to(Path.cwd()):
        uri = f"sqlite:///{os.path.relpath(store.root / DATABASE)}"
    return f"mlflow server --backend-store-uri {shlex.quote(_without_password(uri))} --host {HOST} --port {PORT}"


def view_link(grid: Grid, store: Store) -> str | None:
    """The link to the grid's charts; None while nothing is tracked, or where that cannot be found out."""
    uri = tracking_uri(grid, store)
    found = _ask_mlflow(uri, grid.name) if grid.runtime.mlflow else _ask_sqlite(store.root / DATABASE, grid.name)
    if found is None:
        return None
    experiment, has_view = found
    base = _without_password(uri).rstrip("/") if is_server(uri) else f"http://{HOST}:{PORT}"
    share = f"viewStateShareKey={VIEW_KEY}&" if has_view else ""
    return f"{base}/#/experiments/{experiment}/runs?{share}compareRunsMode=CHART"


def is_lost(grid: Grid, store: Store) -> bool:
    """Whether the sqlite file in the store is gone or damaged, or has nothing of the grid; no other place is asked."""
    return not grid.runtime.mlflow and _ask_sqlite(store.root / DATABASE, grid.name) is None


def _ask_sqlite(database: Path, name: str) -> tuple[str, bool] | None:
    """The experiment's id and whether its view is there, without the seconds that importing mlflow takes."""
    if not database.is_file():
        return None
    query = "SELECT experiment_id FROM experiments WHERE name = ? AND lifecycle_stage = 'active'"
    view = "SELECT 1 FROM experiment_tags WHERE experiment_id = ? AND key = ?"
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute(query, (name,)).fetchone()
            return row and (str(row[0]), connection.execute(view, (row[0], VIEW_TAG)).fetchone() is not None)
    except sqlite3.Error:
        return None


def _ask_mlflow(uri: str, name: str) -> tuple[str, bool] | None:
    from kdray.track.connection import TrackingError, connect, tracking_errors

    try:
        with tracking_errors(uri):
            experiment = connect(uri).get_experiment_by_name(name)
    except TrackingError:
        return None
    if experiment is None or experiment.lifecycle_stage != "active":
        return None
    return experiment.experiment_id, VIEW_TAG in experiment.tags


def _without_password(uri: str) -> str:
    """The URI with the password, if it has one, replaced by `***`; a server's user name goes too."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    login, _, host = parts.netloc.rpartition("@")
    user, colon, _ = login.partition(":")
    shown = host if is_server(uri) else f"{user}{colon and ':***'}@{host}"
    return urlunsplit(parts._replace(netloc=shown))
