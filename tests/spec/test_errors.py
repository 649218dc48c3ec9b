"""The one exception for what a user got wrong."""

from __future__ import annotations

from kdray.spec import InputError


def test_an_error_survives_being_sent_to_another_process() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(InputError("a", "b\nc", "d")))  # noqa: S301 - our own
    assert (str(error), error.field, error.found, error.allowed) == ("a: b c; d", "a", "b\nc", "d")
