"""A webhook is told how a run goes; its URL is told to nobody."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from kdray.orchestration import notify
from kdray.orchestration.notify import Notifier
from kdray.spec import InputError

SECRET = "s3cret"


class Hook(BaseHTTPRequestHandler):
    """Keeps what it is told, and answers with `server.status`."""

    def do_POST(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.told.append((self.path, self.headers["Content-Type"], json.loads(body)))
        self.send_response(server.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server: Any = HTTPServer(("127.0.0.1", 0), Hook)
    server.told, server.status = [], 200
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HOOK", f"http://127.0.0.1:{server.server_port}/{SECRET}")
    yield server
    server.shutdown()
    server.server_close()


def test_the_webhook_gets_the_first_failure_and_the_end(hook: Any) -> None:
    said: list[str] = []
    notifier = Notifier("tiny", "HOOK", said.append)
    notifier.failing("failed train a: loss nan")
    notifier.failing("failed train b: loss nan")
    with notifier.ending():
        pass
    notifier.tell("done", "all is done")
    assert hook.told == [
        (
            f"/{SECRET}",
            "application/json",
            {"grid": "tiny", "state": "failing", "text": "tiny: failed train a: loss nan (the run goes on)"},
        ),
        (f"/{SECRET}", "application/json", {"grid": "tiny", "state": "done", "text": "tiny: all is done"}),
    ]
    assert said == []


@pytest.mark.parametrize(
    ("error", "state", "text"),
    [
        (KeyboardInterrupt(), "interrupted", "tiny: interrupted: the same command goes on"),
        (InputError("data", "no rows", "give some"), "failed", "tiny: data: no rows; give some"),
        (RuntimeError("Traceback\n  deep\nOSError: full"), "failed", "tiny: OSError: full"),
        (RuntimeError(), "failed", "tiny: RuntimeError"),
    ],
)
def test_an_end_by_an_error_is_told_and_stays_one(hook: Any, error: BaseException, state: str, text: str) -> None:
    notifier = Notifier("tiny", "HOOK", pytest.fail)
    with pytest.raises(type(error)), notifier.ending():
        raise error
    assert [body for _, _, body in hook.told] == [{"grid": "tiny", "state": state, "text": text}]


def test_a_webhook_that_refuses_is_said_once_and_still_told_of_the_end(hook: Any) -> None:
    said: list[str] = []
    hook.status = 500
    notifier = Notifier("tiny", "HOOK", said.append)
    notifier.failing("failed")
    notifier.tell("done", "all is done")
    assert said == ["[yellow]the webhook in HOOK answers 500[/]; the run goes on"]
    assert len(hook.told) == 2


def test_a_webhook_that_is_not_there_is_said_without_its_url(hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    for url in (f"http://127.0.0.1:1/{SECRET}", f"http://127.0.0.1:{hook.server_port}/a {SECRET}"):
        monkeypatch.setenv("HOOK", url)
        Notifier("tiny", "HOOK", said.append).tell("done", "all is done")
    assert said == [
        f"[yellow]the webhook in HOOK does not answer: {kind}[/]; the run goes on"
        for kind in ("ConnectionRefusedError", "InvalidURL")
    ]


def test_a_webhook_that_hangs_is_waited_for_seconds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("HOOK", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        monkeypatch.setattr(notify, "SECONDS", 0.05)
        Notifier("tiny", "HOOK", said.append).tell("done", "all is done")
    assert said == ["[yellow]the webhook in HOOK does not answer: TimeoutError[/]; the run goes on"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no variable HOOK in the environment; export it"),
        (" ", "no variable HOOK in the environment; export it"),
        (SECRET, "the variable HOOK holds no URL; "),
        (f"ftp://{SECRET}", "the variable HOOK holds no URL; "),
        (f"https:///{SECRET}", "the variable HOOK holds no URL; "),
        (f"https://[{SECRET}", "the variable HOOK holds no URL; "),
        (f"https://host:x/{SECRET}", "the variable HOOK holds no URL; "),
    ],
)
def test_what_is_no_webhook_is_refused_and_not_shown(
    value: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOOK", raising=False)
    if value is not None:
        monkeypatch.setenv("HOOK", value)
    with pytest.raises(InputError) as told:
        Notifier("tiny", "HOOK", pytest.fail)
    assert str(told.value).startswith(f"runtime.notify: {reason}")
    assert SECRET not in str(told.value)


def test_without_a_webhook_nobody_is_told() -> None:
    Notifier("tiny", None, pytest.fail).tell("done", "all is done")
