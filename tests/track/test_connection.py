"""What a tracking store raises becomes one line without a password."""

from __future__ import annotations

import importlib.util

import pytest

from kdray.track.connection import TrackingError, connect, tracking_errors


@pytest.mark.slow
@pytest.mark.parametrize("login", ["bob:s3cret", "bob:s3cret@home", "s3cret"])
def test_a_password_is_not_told(login: str) -> None:
    with (
        pytest.raises(TrackingError, match=r"^request to http://\.\.\.@host:5000/api failed: http://host") as caught,
        tracking_errors("http://host"),
    ):
        raise ConnectionError(f"request to http://{login}@host:5000/api failed: http://host")
    assert caught.value.__cause__ is None


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("psycopg") is not None, reason="the driver is installed")
def test_a_missing_database_driver_is_an_error_of_the_view() -> None:
    with pytest.raises(TrackingError, match="psycopg"), tracking_errors("postgresql://host/db"):
        connect("postgresql+psycopg://bob:s3cret@127.0.0.1:9/db").search_experiments()
