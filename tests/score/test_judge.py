"""The judge against a real local server that speaks the protocol, and at times does not."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse

from kdray.score.answers import Answer, Given, score_answers
from kdray.score.endpoint import Endpoint, Nonsense, Stopped
from kdray.score.metrics.judge import Judge, ask, read

KEY = "sk-secret"
TRUE, FALSE = "It fits. **Conclusion: True**", "Wrong. **Conclusion: False** **Problematic Spans: ['in Rome']**"
ANSWER = Answer("Ada lives in Rome.", source="Ada is in Paris.", references=["Ada is in Paris."])


class Server:
    """Answers with what `say` holds, in turn; the last for ever."""

    def __init__(self, port: int) -> None:
        self.url, self.say, self.asked, self.keys = f"http://127.0.0.1:{port}/v1", [TRUE], [], []
        app = FastAPI()

        @app.post("/v1/chat/completions")
        async def complete(request: Request) -> Any:
            self.asked.append((await request.json())["messages"][0]["content"])
            self.keys.append(request.headers.get("authorization"))
            said = self.say.pop(0) if len(self.say) > 1 else self.say[0]
            if isinstance(said, int):
                return JSONResponse({"error": {"message": KEY}}, said, headers={"Retry-After": "0"})
            if said == "":
                return PlainTextResponse("<html>")
            if isinstance(said, dict):
                return said
            return {
                "choices": [{"message": {"content": said}}],
                "usage": {"prompt_tokens": 1000, "completion_tokens": 100},
            }

        self.uvicorn = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Server(port)
    thread = threading.Thread(target=server.uvicorn.run, daemon=True)
    thread.start()
    while not server.uvicorn.started:
        time.sleep(0.01)
    yield server
    server.uvicorn.should_exit = True
    thread.join()


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("OPENAI_BASE_URL", running.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    running.say, running.asked, running.keys = [TRUE], [], []
    return running


def endpoint(folder: Path, **options: Any) -> Endpoint:
    return Endpoint("m", folder, wait=0.01, **options)


def row(example: int, text: str):
    return {
        "example": example,
        "answer": text,
        "error": None,
        "question": "",
        "source": "s",
        "references": ["r"],
        "wrong": [],
    }


def test_verdicts_become_a_rate_and_spans_of_the_answer(server, tmp_path):
    server.say = [TRUE, FALSE]
    metric = Judge(Given({}, cache=tmp_path), model="m", concurrency=1)
    said = metric([Answer("Ada is in Paris.", source="s"), ANSWER, Answer("", source="s")])
    assert [r.get("judge") for r in said] == [100.0, 0.0, None]
    assert said[1]["spans"] == [[10, 17]]
    assert server.keys == [f"Bearer {KEY}"] * 2


def test_what_was_asked_before_is_not_asked_again(server, tmp_path):
    answers = [endpoint(tmp_path).ask(prompt) for prompt in ("a", "a", "b")]
    assert answers == [TRUE] * 3
    assert server.asked == ["a", "b"]
    endpoint(tmp_path, max_tokens=7).ask("a")
    assert len(server.asked) == 3  # another question: the length of the answer is part of it


@pytest.mark.parametrize(
    "trouble", [[429, 500, TRUE], ["", {"choices": []}, TRUE], [{"choices": [{"message": {"content": None}}]}, TRUE]]
)
def test_a_busy_or_confused_server_is_asked_again(server, tmp_path, trouble):
    server.say = list(trouble)
    assert endpoint(tmp_path).ask("a") == TRUE
    assert len(server.asked) == len(trouble)


@pytest.mark.parametrize(
    ("said", "raised", "times"),
    [
        ([503], Stopped, 5),
        ([401], Stopped, 1),
        ([400], Nonsense, 1),
        ([""], Nonsense, 5),
        ([{"detail": "x"}], Nonsense, 5),
    ],
)
def test_what_does_not_pass_is_an_error_that_never_shows_the_key(server, tmp_path, said, raised, times):
    server.say = said
    with pytest.raises(raised) as caught:
        endpoint(tmp_path).ask("a")
    assert KEY not in str(caught.value)
    assert len(server.asked) == times


def test_a_server_that_is_down_stops_all(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://user:hidden@127.0.0.1:9/v1")
    asking = endpoint(tmp_path)
    with pytest.raises(Stopped, match="does not answer") as caught:
        asking.ask("a")
    assert "hidden" not in str(caught.value)
    with pytest.raises(Stopped, match="another request failed"):
        asking.ask("b")


def test_the_budget_is_kept_over_processes_and_what_was_paid_for_is_not_lost(server, tmp_path):
    prices: dict[str, Any] = {"price_in": 1000.0, "price_out": 10_000.0, "budget": 3.0}  # $2 an answer
    first = endpoint(tmp_path, **prices)
    first.ask("a")
    first.ask("b")
    assert first.spent() == pytest.approx(4.0)
    second = endpoint(tmp_path, **prices)
    with pytest.raises(Stopped, match="budget"):
        second.ask("c")
    assert second.ask("a") == TRUE
    assert len(server.asked) == 2


def test_an_answer_that_is_no_use_is_paid_for_too(server, tmp_path):
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    server.say = [{"choices": [{"message": {"content": None}}], "usage": usage}, TRUE]
    asking = endpoint(tmp_path, price_in=1000.0, price_out=10_000.0, budget=10.0)
    assert asking.ask("a") == TRUE
    assert asking.spent() == pytest.approx(4.0)


def test_an_answer_without_a_verdict_is_left_out_and_nothing_but_such_stops_all(server, tmp_path):
    metric = Judge(Given({}, cache=tmp_path), model="m", concurrency=1)
    server.say = ["I cannot say.", TRUE]
    scores, rows = score_answers([row(i, f"answer {i}") for i in range(3)], [metric], count_empty=False)
    assert (scores["judge"]["n"], scores["judge"]["value"]) == (2, 100.0)
    assert "no conclusion" in rows[0]["error"]
    server.say, server.asked = ["I cannot say."], []
    with pytest.raises(Stopped, match="none of the first 5"):
        score_answers([row(i, f"other {i}") for i in range(50)], [metric], count_empty=False)
    assert len(server.asked) == 5


def test_the_rubric_is_that_of_summaries_or_of_answers():
    summary = ask(ANSWER)
    assert summary.startswith("You will be provided with a document and a proposed summary. Your task is")
    assert (
        "#Document#: Ada is in Paris.\n\n#Ground Truth Summary#: Ada is in Paris.\n\n#Proposed Summary#: Ada lives in"
        " Rome.\n\n" in summary
    )
    answer = ask(Answer("Rome", question="Where?", source="{doc}", references=["Paris", "France"]))
    assert (
        "#Document#: {doc}\n\n#Ground Truth Answers (a list of valid answers)#: ['Paris', 'France']\n\n#Proposed"
        " Answer#: Rome" in answer
    )
    assert "summary" not in answer


@pytest.mark.parametrize(
    ("said", "true", "spans"),
    [
        ("**Conclusion:** False\n**Problematic Spans:** [\"in Rome\", 'lives']", False, [(4, 9), (10, 17)]),
        ("Conclusion: False **Problematic Spans: ['it's', 'in Rome']**", False, [(10, 17)]),
        ("Conclusion: False", False, []),
        ("First I thought Conclusion: True, but Conclusion: FALSE. Problematic Spans: ['nowhere']", False, []),
        ("**Conclusion: True** Problematic Spans: ['in Rome']", True, []),
    ],
)
def test_verdicts_are_read_as_models_write_them(said, true, spans):
    assert read(said, ANSWER.text) == (true, spans)
