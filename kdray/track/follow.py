"""The MLflow view beside a run, which goes on where the view cannot be written."""

from __future__ import annotations

from collections.abc import Callable

from kdray.track.connection import TrackingError
from kdray.track.mirror import Mirror


class Follower:
    """Keeps `mirror` up to date whenever it is called; `warn` is told the first reason why that is not possible."""

    def __init__(self, mirror: Mirror, warn: Callable[[str], None]) -> None:
        self._mirror, self._warn = mirror, warn
        self._warned = False

    def __call__(self) -> None:
        self._try(self._mirror.update)

    def finish(self) -> None:
        self._try(self._mirror.finish)

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except TrackingError as error:
            if not self._warned:
                self._warn(str(error))
            self._warned = True
