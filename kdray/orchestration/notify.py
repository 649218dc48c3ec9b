"""Tells a webhook how a run goes: a JSON object {grid, state, text} at its first failure and at its end.

The URL is a secret: it comes from the environment, and neither it nor what libraries say of it is shown anywhere.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Literal

from kdray.check.webhook import webhook

SECONDS = 5.0  # for the webhook to answer: a run that is interrupted is to end soon
State = Literal["failing", "done", "incomplete", "failed", "interrupted"]


class Notifier:
    """The webhook in the variable `name`, or nobody. One that does not answer is told once, and holds nothing up.

    Raises:
        InputError: the variable is not set, or holds no URL.
    """

    def __init__(self, grid: str, name: str | None, say: Callable[[str], None]) -> None:
        self._grid, self._name, self._say = grid, name, say
        self._url = webhook(name) if name else None
        self._said = self._failing = False

    def failing(self, text: str) -> None:
        """That a step has failed while the run goes on: of the first alone, as many may follow."""
        if not self._failing:
            self._failing = True
            self.tell("failing", f"{text} (the run goes on)")

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """Tell of an end before the end of the block."""
        try:
            yield
        except KeyboardInterrupt:
            self.tell("interrupted", "interrupted: the same command goes on")
            raise
        except Exception as error:
            lines = str(error).strip().splitlines()
            self.tell("failed", lines[-1] if lines else type(error).__name__)
            raise

    def tell(self, state: State, text: str) -> None:
        """Post a state, and a line about it."""
        if self._url is None:
            return
        body = json.dumps({"grid": self._grid, "state": state, "text": f"{self._grid}: {text}"}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=SECONDS):
                return
        except urllib.error.HTTPError as error:
            reason = f"answers {error.code}"
        except urllib.error.URLError as error:
            reason = f"does not answer: {_kind(error.reason)}"
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = f"does not answer: {_kind(error)}"
        if not self._said:
            self._said = True
            self._say(f"[yellow]the webhook in {self._name} {reason}[/]; the run goes on")


def _kind(reason: object) -> str:
    """What is wrong, without the words of libraries: they may hold the URL."""
    return type(reason).__name__
