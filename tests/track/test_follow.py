"""A view that cannot be written stops nothing."""

from __future__ import annotations

from typing import Any

from kdray.track.connection import TrackingError
from kdray.track.follow import Follower


class Broken:
    def __init__(self) -> None:
        self.tried: list[str] = []

    def update(self) -> None:
        self.tried.append("update")
        raise TrackingError("no answer")

    def finish(self) -> None:
        self.tried.append("finish")
        raise TrackingError("still none")


def test_the_first_reason_alone_is_told_and_every_call_tries_again() -> None:
    mirror: Any = Broken()
    warned: list[str] = []
    follow = Follower(mirror, warned.append)
    follow()
    follow()
    follow.finish()
    assert mirror.tried == ["update", "update", "finish"]
    assert warned == ["no answer"]
