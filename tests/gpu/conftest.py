"""The figures that checks note: a line each and, at the end, one line of JSON with the card they were measured on."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator

import pytest
import torch

LINES: list[str] = []
FIGURES: dict[str, float] = {}
Figure = Callable[..., None]


@pytest.fixture
def figure() -> Figure:
    """`figure("name", value, at_most=bound)`: noted, whether it holds or not."""

    def note(name: str, value: float, *, at_most: float | None = None, at_least: float | None = None) -> None:
        bound = f", at most {at_most:g}" if at_most is not None else f", at least {at_least:g}" if at_least else ""
        LINES.append(f"{name}: {value:.4g}{bound}")
        FIGURES[name] = value
        assert at_most is None or value <= at_most, LINES[-1]
        assert at_least is None or value >= at_least, LINES[-1]

    return note


@pytest.fixture(autouse=True)
def _an_empty_gpu() -> Iterator[None]:
    """No check sees what another left in memory."""
    yield
    gc.collect()
    torch.cuda.empty_cache()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not FIGURES:
        return
    terminalreporter.section("figures")
    for line in LINES:
        terminalreporter.write_line(line)
    found = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
    terminalreporter.write_line(json.dumps(found | {name: round(value, 6) for name, value in FIGURES.items()}))
