"""A bench whose store has an empty MLflow file already: making one takes seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kdray.track.connection import connect
from tests.track.bench import Bench


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def bench(tmp_path: Path, empty_database: Path) -> Bench:
    made = Bench(tmp_path)
    made.store.root.mkdir()
    shutil.copy(empty_database, made.database)
    return made
