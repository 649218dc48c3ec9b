"""A tiny random model that the tests of citations ask."""

from __future__ import annotations

import pytest

from kdray.models.loaded import Loaded, load_as
from tests.tiny import write_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load_as(write_model(tmp_path_factory.mktemp("model"), layers=2), "float32")
