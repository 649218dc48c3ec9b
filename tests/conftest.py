"""What all tests share: where real data are, and a small grid whose inputs are files in a temporary folder."""

from __future__ import annotations

import copy
import gc
import importlib.metadata
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdray.spec import components, installed

ROOT = Path(__file__).parents[1]
TEST_DATA = Path(os.environ.get("KDRAY_TEST_DATA", ROOT.parent / "shared" / "data"))
Run = Callable[..., tuple[int, str, str]]
ABSENT = object()  # as a change to the tiny grid: leave the field out

GRID = {
    "name": "tiny",
    "question": "Does it work?",
    "family": "toy",
    "teacher": {"model": "file:HERE/teacher", "tune": {"method": "lora", "lr": 1e-3, "steps": 2}},
    "student": {"model": "file:HERE/student"},
    "data": {"source": "file:HERE/rows.jsonl", "recipe": "dolly", "template": "alpaca", "heldout": 2},
    "train": {"steps": 4, "keep": [2]},
    "axes": {"lr": [1e-3, 1e-4], "batch": [2], "alpha": [0, 0.1]},
    "score": {"tasks": ["heldout_loss", "heldout_answers", {"name": "xsum", "source": "file:HERE/xsum.jsonl"}]},
    "runtime": {"store": "HERE/store"},
}


class Install:
    """Lays distributions into a folder on sys.path, as pip would, and has kdray look at those alone."""

    def __init__(self, site: Path) -> None:
        self.site = site

    def __call__(
        self, entries: dict[str, dict[str, str]], name: str = "kdray-example", version: str | None = "0.1.0"
    ) -> None:
        """The metadata of one: its entry points by group."""
        info = self.site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\n" + (f"Version: {version}\n" if version else "")
        )
        lines = [
            line
            for group, names in entries.items()
            for line in (f"[{group}]", *(f"{key} = {names[key]}" for key in names))
        ]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        self.look_again()

    def module(self, path: str, source: str) -> None:
        """A file of one."""
        file = self.site / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)

    def look_again(self) -> None:
        """Forget what was installed."""
        components.found_components.cache_clear()

    def entry_points(self) -> importlib.metadata.EntryPoints:
        found = importlib.metadata.distributions(path=[str(self.site)])
        return importlib.metadata.EntryPoints(entry for each in found for entry in each.entry_points)


# What else is installed on a machine has no part in the tests: not in those that list all components, nor in what they
# renew.
installed.entry_points = Install(ROOT / "nowhere").entry_points
# Before any test loads Ray: what a session asks of it must hold for those that come after another. And Ray's processes
# yield to all others by default: beside a second test that keeps the cores busy they would take minutes to start.
os.environ |= {"RAY_ENABLE_AUTO_CONNECT": "0", "RAY_worker_niceness": "0"}
# until all tests are imported: libraries' objects stay, and looking through them would take a third of the unit tier
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("realdata") and not TEST_DATA.is_dir():
        pytest.skip(f"no real data at {TEST_DATA}: set KDRAY_TEST_DATA to the folder that has them")
    if item.get_closest_marker("hub") and not os.environ.get("KDRAY_TEST_HUB"):
        pytest.skip("asks the Hugging Face hub: set KDRAY_TEST_HUB")


@pytest.fixture(autouse=True, scope="session")
def _memory_is_disk_enough() -> Iterator[None]:
    """No test loses its power, and waiting for the disk would take most of their time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """One local Ray for all runs of a module, of which each would start and stop its own: that takes longer than some
    of them.
    """
    import ray

    from kdray.orchestration.session import end

    init = ray.init
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "init", lambda **options: ray.is_initialized() or init(**options))
        patch.setattr(ray, "shutdown", lambda: None)
        yield
    end()


@pytest.fixture
def data_dir() -> Path:
    """The folder of real data; for tests marked `realdata`, which are skipped where there is none."""
    assert TEST_DATA.is_dir(), "mark the test with pytest.mark.realdata"
    return TEST_DATA


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as a folder: the quickstart's, if that has run, or made of the same wheel (a minute)."""
    for folder in sorted(ROOT.glob("runs/quickstart/model/smollm2-135m-instruct*")):
        if "without" not in folder.name and (folder / "DONE").is_file():
            return next(folder.glob("attempt-*"))
    from kdray.models.load import lay_down
    from kdray.spec import load_grid
    from kdray.spec.refs import parse_reference
    from kdray.store import Outer

    base = tmp_path_factory.mktemp("smollm2")
    ref = parse_reference(load_grid(ROOT / "grids" / "quickstart.yaml").student.model)
    lay_down(ref, Outer(base / "store"), base / "model", "model")
    return base / "model"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """`run("plan", grid)`: the exit code, stdout and stderr of `kdray plan GRID` in this process, in `tmp_path`."""
    from kdray.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kdray", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every message that a logger of any library has taken; pytest's own plugin for it costs all tests much, for two
    that ask.
    """
    messages: list[str] = []
    handle = logging.Logger.callHandlers

    def note(logger: logging.Logger, record: logging.LogRecord) -> None:
        messages.append(record.getMessage())
        handle(logger, record)

    monkeypatch.setattr(logging.Logger, "callHandlers", note)
    return messages


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Distributions that give components, for the length of a test."""
    made, before = Install(tmp_path / "site"), set(sys.modules)
    made.site.mkdir()
    monkeypatch.syspath_prepend(made.site)
    monkeypatch.setattr(installed, "entry_points", made.entry_points)
    yield made
    made.look_again()
    for name in set(sys.modules) - before:
        if str(made.site) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


class TinyGrid:
    """A complete small grid: two models of one tokenizer, rows as Dolly has them, a test set, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model("student")
        self.model("teacher")
        self.rows("rows.jsonl", [{"instruction": f"Say {i}.", "context": "", "response": f"{i}."} for i in range(6)])
        self.rows("xsum.jsonl", [{"document": "It rained all day.", "summary": "Rain."}])

    def __call__(self, changes: dict[str, Any] | None = None, name: str = "grid.yaml") -> Path:
        """Write the grid with `changes`, {"axes.lr": [1e-5]}, and return its path."""
        path = self.folder / name
        path.write_text(self.text(changes))
        return path

    def text(self, changes: dict[str, Any] | None = None) -> str:
        tree: dict[str, Any] = copy.deepcopy(GRID)
        for where, value in (changes or {}).items():
            section, names = tree, where.split(".")
            for name in names[:-1]:
                section = section.setdefault(name, {})
            if value is ABSENT:
                del section[names[-1]]
            else:
                section[names[-1]] = value
        return yaml.dump(tree, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False).replace(
            "HERE", str(self.folder)
        )

    def model(self, name: str, weights: bytes | None = None, tokens: tuple[str, ...] = ("a", "b")) -> Path:
        """A folder that looks like a Hugging Face model from outside."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
        (folder / "model.safetensors").write_bytes(weights or safetensors_of(name.encode()))
        vocabulary = {token: i for i, token in enumerate(tokens)}
        tokenizer = {"model": {"vocab": vocabulary}, "added_tokens": [{"content": "<end>", "id": len(tokens)}]}
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        return folder

    def rows(self, name: str, rows: list[dict[str, str]]) -> Path:
        """A file with one object a line."""
        path = self.folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path


def safetensors_of(content: bytes, name: str = "a") -> bytes:
    """A whole safetensors file with one tensor of bytes."""
    header = json.dumps({name: {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}}).encode()
    return len(header).to_bytes(8, "little") + header + content


@pytest.fixture
def tiny_grid(tmp_path: Path) -> TinyGrid:
    return TinyGrid(tmp_path)


def tree_of(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, to see whether something was written."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
