"""The ids of all steps of all shipped grids, against those in golden_ids.json: an id that moves throws work away.

Every `hf:` and `wheel:` reference resolves to a hash of its own text, and lm-eval's version is a made-up one, so that
ids depend neither on the hub nor on the machine. The file has a line a grid and kind of step: how many steps there are,
a hash of all their ids (`ids`), one of all that is in their payloads beside the ids of their inputs (`own`), and the
first step. Where `ids` moves and `own` does not, the cause lies in a kind of step that these are made from.

Where ids are meant to move, renew the file and commit it: its diff says what is made again.

    python -m tests.plan.test_golden_ids
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdray.plan import Step, make_plan
from kdray.spec import load_grid
from kdray.spec.refs import Reference
from kdray.store import Outer, io
from kdray.store.ids import canonical
from tests.conftest import ROOT

GRIDS = sorted((ROOT / "grids").glob("*.yaml"))
GOLDEN = Path(__file__).with_name("golden_ids.json")
RENEW = "if they are meant to move: python -m tests.plan.test_golden_ids"
Line = dict[str, Any]


def pin(ref: Reference) -> str:
    """A commit or sha256 for a reference that has none."""
    digest = hashlib.sha256(str(ref).encode()).hexdigest()
    return digest[:40] if ref.scheme == "hf" else digest


def steps_of(grid: Path, folder: Path) -> Iterator[Step]:
    """The steps of a grid over a store in `folder`, whose lock file knows every reference."""
    spec, outer = load_grid(grid), Outer(folder / "store")
    sources = {step.source for step in make_plan(spec, outer).steps() if step.source is not None}
    io.put_json(outer.lockfile, {str(ref): pin(ref) for ref in sources if outer.identify(ref) is None}, durable=False)
    return make_plan(spec, outer).steps()


def digest(values: Any) -> str:
    return hashlib.sha256(canonical(values).encode()).hexdigest()[:16]


def lines_of(grid: Path, folder: Path) -> dict[str, Line]:
    """What the golden file says of a grid, by the kind of step."""
    kinds: dict[str, list[Step]] = defaultdict(list)
    for step in steps_of(grid, folder):
        kinds[step.kind].append(step)
    return {kind: line_of(steps) for kind, steps in sorted(kinds.items())}


def line_of(steps: list[Step]) -> Line:
    ids = sorted([step.slug, step.key.id] for step in steps)
    own = sorted(canonical([step.slug, (step.payload or {}) | {"inputs": sorted(step.inputs.named)}]) for step in steps)
    return {"steps": len(steps), "ids": digest(ids), "own": digest(own), "first": " ".join(ids[0])}


def golden() -> dict[str, dict[str, Line]]:
    return json.loads(GOLDEN.read_text())


def moved(before: dict[str, Line], now: dict[str, Line]) -> list[str]:
    """A sentence for every kind of step that is not as it was, the causes first."""
    found = []
    for kind in sorted({*before, *now}):
        old, new = before.get(kind, {}), now.get(kind, {})
        if old.get("own") != new.get("own"):
            counts = (
                f" ({old.get('steps', 0)} -> {new.get('steps', 0)} steps)"
                if old.get("steps") != new.get("steps")
                else ""
            )
            found.insert(
                0, f"{kind}: another version, parameters or names{counts}; {old.get('first')} -> {new.get('first')}"
            )
        elif old != new:
            found.append(f"{kind}: moved by what it is made from; {old['first']} -> {new['first']}")
    return found


@pytest.fixture(autouse=True)
def _one_lm_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)


def pretend(patch: pytest.MonkeyPatch) -> None:
    """The version of lm-eval, which enters ids, is the same on every machine."""
    patch.setattr(importlib.metadata, "version", lambda name: f"golden {name}")


def test_every_shipped_grid_has_golden_ids() -> None:
    assert set(golden()) == {path.stem for path in GRIDS}, RENEW


@pytest.mark.parametrize("path", GRIDS, ids=[path.stem for path in GRIDS])
def test_no_id_has_moved(path: Path, tmp_path: Path) -> None:
    found = moved(golden().get(path.stem, {}), lines_of(path, tmp_path))
    assert not found, "\n".join([f"ids of {path.name} have moved:", *found, RENEW])


@pytest.mark.slow
def test_ids_depend_neither_on_the_folder_nor_on_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = next(path for path in GRIDS if path.stem == "llama2_7b")
    assert lines_of(path, tmp_path / "elsewhere") == lines_of(path, tmp_path)


def test_a_failure_names_the_kind_that_moved_by_itself_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = next(path for path in GRIDS if path.stem == "quickstart")
    before = lines_of(path, tmp_path)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "another")
    assert [line.partition(":")[0] for line in moved(before, lines_of(path, tmp_path))] == ["measure"]
    text = path.read_text().replace("cosine", "constant")
    (tmp_path / "changed.yaml").write_text(text)
    monkeypatch.undo()
    pretend(monkeypatch)
    found = moved(before, lines_of(tmp_path / "changed.yaml", tmp_path))
    assert found[0].startswith("train: another version, parameters or names; lr0.0001-b4-a0-s0 ")
    assert [line.split(";")[0] for line in found[1:]] == [
        f"{kind}: moved by what it is made from" for kind in ("generate", "measure", "student")
    ]


def renew() -> None:
    """Write the ids of the grids as they are now; one line a grid and kind."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        pretend(patch)
        grids = {path.stem: lines_of(path, Path(folder) / path.stem) for path in GRIDS}
    blocks = [
        f'"{name}": {{\n' + ",\n".join(f' "{kind}": {json.dumps(line)}' for kind, line in lines.items()) + "\n}"
        for name, lines in grids.items()
    ]
    GOLDEN.write_text("{\n" + ",\n".join(blocks) + "\n}\n")


if __name__ == "__main__":
    renew()
