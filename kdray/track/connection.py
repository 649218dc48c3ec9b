"""The MLflow tracking store or server behind a URI. Everything that it raises becomes a `TrackingError`."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kdray.store import io

if TYPE_CHECKING:
    from mlflow import MlflowClient

# What the user's environment does not say. MLflow itself would wait two minutes for an answer and ask eight times,
# which is too long for a view, would announce every finished run, and tell its makers of its use.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
DAMAGED = ("database disk image is malformed", "file is not a database")  # as sqlite says it
QUIET = ("mlflow.store.db.utils", "mlflow.store.tracking.sqlalchemy_store", "alembic")


class TrackingError(Exception):
    """The tracking store or server cannot be read or written."""


@contextmanager
def tracking_errors(uri: str) -> Iterator[None]:
    """Turn whatever a broken or unreachable tracking store at `uri` raises into `TrackingError`."""
    from alembic.util import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, CommandError, sqlite3.Error, OSError, ImportError) as error:
        # requests raises OSErrors, a missing database driver is an ImportError; the address may hold a password
        reason = re.sub(r"//[^/\s]*@", "//...@", str(error)) or type(error).__name__
        if (damaged := next(filter(reason.__contains__, DAMAGED), None)) and (database := _database(uri)):
            reason = f"{database} is damaged, {damaged}: remove it"
        raise TrackingError(reason) from None


def connect(uri: str) -> MlflowClient:
    """A client of the tracking store at `uri`; an sqlite file is made if it is missing."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for name in QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if database := _database(uri):
        _prepare(database)
    return MlflowClient(tracking_uri=uri)


def analyse(uri: str) -> None:
    """Have an sqlite file sample how its metrics are spread, by which it chooses an index; in a millisecond.

    Without that a chart over a hundred of 300 runs takes four times as long. Nothing is done to other databases, which
    do so by themselves.
    """
    if database := _database(uri):
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA analysis_limit = 1000")
            connection.execute("ANALYZE metrics")


def _database(uri: str) -> Path | None:
    """The sqlite file at `uri`."""
    from sqlalchemy.engine import make_url

    database = make_url(uri).database if uri.startswith("sqlite:") else None
    return Path(database).absolute() if database else None


def _prepare(database: Path) -> None:
    """Make the sqlite file if it is missing, and let it be read while it is written (WAL)."""
    if not database.exists():
        with io.alone(database):  # another driver may open what it has just made, and its journal is not to be removed
            _make(database)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def _make(database: Path) -> None:
    """Make an sqlite file unless there is one by now.

    It is made aside and moved into place: several drivers that make it at once, or one that is killed meanwhile,
    would leave a file whose migrations can neither be finished nor be started again.
    """
    if database.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for journal in ("-wal", "-shm"):  # of one that was removed: it would be written into the new one
        io.delete(database.with_name(database.name + journal))
    aside = database.with_name(f"{io.TEMPORARY}{uuid.uuid4().hex}.db")
    try:
        SqlAlchemyStore(f"sqlite:///{aside}", (database.parent / "mlartifacts").as_uri()).engine.dispose()
        os.link(aside, database)
    except FileExistsError:
        pass  # another driver was faster
    finally:
        io.delete(aside)
