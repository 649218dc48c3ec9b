"""A chat model behind an OpenAI-compatible endpoint: any vLLM, `transformers serve` or hosted server.

Where it is and the key to it are said by the environment alone, OPENAI_BASE_URL and OPENAI_API_KEY, and never
written down. An answer is kept under the hash of what was asked, so nothing is paid for twice; what was spent
is kept in a ledger beside the answers, which all processes that share the folder read before they ask.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from kdray.store import io

URL, KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"
TRIES = 5
TIMEOUT = 120.0  # seconds for one answer
LONGEST_WAIT = 60.0  # seconds
MILLION = 1e6


class Stopped(OSError):
    """The endpoint cannot, or may not, be asked any further; what it answered so far is kept."""


class Nonsense(ValueError):
    """What came back is no answer."""


@dataclass
class Endpoint:
    """Asks `model`.

    Prices are in USD for a million tokens, `budget` is in USD and `wait`, before the second try, in seconds.
    """

    model: str
    cache: Path
    max_tokens: int = 512
    price_in: float = 0.0
    price_out: float = 0.0
    budget: float = 10.0
    wait: float = 1.0

    def __post_init__(self) -> None:
        self._url = os.environ.get(URL, "").rstrip("/")
        if not self._url:
            raise Stopped(f"{URL} is not set")
        self._stopped = threading.Event()
        self.cache.mkdir(parents=True, exist_ok=True)

    def ask(self, prompt: str) -> str:
        """The answer to one user turn, at temperature 0. May be called from several threads.

        Raises:
            Stopped: the server is down or refuses us, or the budget is spent.
            Nonsense: it answers, but not with a message, or it refuses this prompt.
        """
        payload = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        place = self.cache / f"{hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()}.json"
        if place.is_file():
            return json.loads(place.read_text())["answer"]
        try:
            answer, usage = self._try(payload)
        except Stopped:
            self._stopped.set()
            raise
        io.put_json(place, {"answer": answer, "usage": usage})
        return answer

    def spent(self) -> float:
        """USD paid so far for answers that are kept in the same folder."""
        ledger = self.cache / "ledger.txt"
        return sum(map(float, ledger.read_text().split())) if ledger.is_file() else 0.0

    def _try(self, payload: dict[str, Any]) -> tuple[str, dict[str, int]]:
        """An answer with the tokens that it took; tried again, ever later, while the server is busy or answers
        nonsense.
        """
        failure: Exception = Stopped("not asked")
        for attempt in range(TRIES):
            if self._stopped.is_set():
                raise Stopped("another request failed for good")
            if self.spent() >= self.budget:
                raise Stopped(f"the budget of ${self.budget:g} is spent; raise it, what is answered is kept")
            after = None
            try:
                response = requests.post(
                    f"{self._url}/chat/completions", json=payload, headers=self._headers(), timeout=TIMEOUT
                )
                if response.status_code in (401, 403, 404):
                    raise Stopped(
                        f"the endpoint answers {response.status_code} {response.reason}: check {URL}, {KEY} and the"
                        " model's name"
                    )
                if response.status_code == 429 or response.status_code >= 500:
                    after = response.headers.get("Retry-After")
                    failure = Stopped(f"the endpoint answers {response.status_code} {response.reason}, {TRIES} times")
                elif response.status_code >= 400:
                    raise Nonsense(f"the endpoint refuses this prompt ({response.status_code} {response.reason})")
                else:
                    return self._read(response)
            except requests.JSONDecodeError:
                failure = Nonsense("the endpoint's answer is no JSON")
            except requests.RequestException as error:  # its text may show the address with a password in it
                failure = Stopped(f"the endpoint does not answer ({type(error).__name__})")
            except (KeyError, IndexError, TypeError):
                failure = Nonsense("the endpoint's answer holds no message")
            if attempt < TRIES - 1:
                time.sleep(_seconds(after, self.wait * 2**attempt))
        raise failure

    def _read(self, response: requests.Response) -> tuple[str, dict[str, int]]:
        body = response.json()
        usage = {name: int((body.get("usage") or {}).get(name) or 0) for name in ("prompt_tokens", "completion_tokens")}
        cost = (usage["prompt_tokens"] * self.price_in + usage["completion_tokens"] * self.price_out) / MILLION
        if cost:
            with (self.cache / "ledger.txt").open("a") as ledger:  # one short write: processes do not mix theirs
                ledger.write(f"{cost:.9f}\n")
        answer = body["choices"][0]["message"]["content"]
        if not isinstance(answer, str):
            raise TypeError(answer)
        return answer, usage

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"} if (key := os.environ.get(KEY)) else {}


def _seconds(asked: str | None, otherwise: float) -> float:
    """How long to wait: what the server asked for, or a little more or less than `otherwise`, so that threads do not
    march in step.
    """
    if asked and asked.isdigit():
        return min(float(asked), LONGEST_WAIT)
    return min(otherwise * random.uniform(0.75, 1.25), LONGEST_WAIT)
