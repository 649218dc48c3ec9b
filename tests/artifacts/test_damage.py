"""Damaged by hand: whoever reads a file of a store says in one line which it is and what to do, with exit code 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import kdray
from kdray.artifacts import answers, curve, parts, scores
from kdray.report.results import collect
from kdray.spec import InputError
from kdray.store import Store
from kdray.store.locks import DONE
from kdray.store.store import RECORD
from kdray.track.runs import wanted_runs
from tests.conftest import Run
from tests.track.bench import Bench

STEP = {"step": 1, "examples": 2, "tokens": 3, "loss": 1.0, "ce": 1.0}
FULL = {"value": 1.0, "stderr": 0.1, "n": 8}
WRONG = {  # by kind and file: what it may hold after an accident
    ("measure", scores.SCORES): [
        *(b"", b"{", b'{"ce": {"value": 1.0, "std', b"[]", b"null", b"\xff", b"[" * 100_000, b"9" * 5000, None),
        *(
            json.dumps({"ce": wrong}).encode()
            for wrong in (1, None, {"value": 1.0}, FULL | {"value": "x"}, FULL | {"n": True})
        ),
    ],
    ("train", curve.CURVE): [
        *(b"", b"{", b"[1]\n", b"\xff\n", b'{"loss": 1.0, "exa', None),
        *(
            json.dumps(wrong).encode() + b"\n"
            for wrong in ({"loss": 1.0}, STEP | {"loss": "x"}, STEP | {"loss": None}, 1)
        ),
    ],
    ("student", DONE): [b'{"attempt": "attempt-001", "files": {}, "facts": {}}', b"{"],
}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.finish()
    return made


def broken(bench: Bench, kind: str, name: str, content: bytes | None) -> Path:
    """The first file of a kind of artifacts, with other content, or without any."""
    path = sorted((bench.store.root / kind).glob(f"*/{name}" if name in (DONE, RECORD) else f"*/*/{name}"))[0]
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), WRONG)
def test_reports_views_and_tables_name_the_file(kind: str, name: str, bench: Bench, run: Run) -> None:
    grid = bench.grid(bench.changes)
    whole = broken(bench, kind, name, b"").read_bytes()
    for content in WRONG[kind, name]:
        path = broken(bench, kind, name, b"")
        path.write_bytes(content) if content is not None else path.unlink()
        folder = path.parent if name == DONE else path.parents[1]
        for command in ("report", "track"):
            code, _, stderr = run(command, grid)
            assert (code, stderr.count("\n")) == (2, 1), (command, content, stderr)
            assert stderr.startswith(f"error {path}: damaged"), (command, content, stderr)
            assert stderr.endswith(f"; remove the folder {folder} and run again\n")
        with pytest.raises(InputError, match="damaged"):
            kdray.results(grid).frame()
        path.write_bytes(whole)


@pytest.mark.slow
def test_a_file_of_which_bytes_are_cut_off_is_never_read_as_a_shorter_one(bench: Bench) -> None:
    """Wherever it is cut: at the end of a line too, where what is left of a curve is a curve."""
    readers: dict[tuple[str, str], Callable[[], object]] = {
        ("measure", scores.SCORES): lambda: collect(bench.plan, bench.store),
        ("train", curve.CURVE): lambda: collect(bench.plan, bench.store),
        ("measure", scores.ROWS): lambda: list(wanted_runs(collect(bench.plan, bench.store), bench.store)),
        ("generate", f"{parts.PREFIX}*"): lambda: [
            answers.read_answers(artifact.path)
            for key, _ in bench.store.folders()
            if key.kind == "generate" and (artifact := bench.store.get(key))
        ],
    }
    for (kind, name), read in readers.items():
        bench.store = Store(bench.store.root)
        read()
        path = sorted((bench.store.root / kind).glob(f"*/*/{name}"))[-1]
        whole = path.read_bytes()
        for length in {*range(0, len(whole) - 1, max(len(whole) // 7, 1)), len(whole) - 2}:
            path.write_bytes(whole[:length])
            with pytest.raises(
                InputError, match=f"^{path}: damaged .*; remove the folder {path.parents[1]} and run again$"
            ):
                read()
        path.unlink()
        if name == f"{parts.PREFIX}*":
            with pytest.raises(InputError, match=rf"^{path}: damaged \(missing\)"):
                read()
        path.write_bytes(whole)


@pytest.mark.slow
def test_a_record_without_its_inputs_is_named_by_gc_and_why(bench: Bench, run: Run) -> None:
    grid = bench.grid(bench.changes)
    for content in (b"{", b"[]", b"{}", b'{"step": "train", "version": 2, "params": {}}'):
        path = broken(bench, "train", RECORD, content)
        said = f"error {path}: damaged; remove the folder {path.parent} and run again\n"
        assert run("gc", "--dry-run", grid)[::2] == (2, said)
        id = path.parent.name[-12:]
        assert run("why", id, bench.plan.models["student"].id, "--store", bench.store.root)[::2] == (2, said)


@pytest.mark.slow
def test_a_record_that_lacks_a_field_is_not_taken_for_one_whose_inputs_are_gone(bench: Bench) -> None:
    for step in bench.plan.steps():
        bench.seal(step)
    assert len(kdray.results(bench.store.root).frame())
    path = sorted((bench.store.root / "generate").glob(f"*/{RECORD}"))[0]
    record = json.loads(path.read_bytes())
    del record["params"]["task"]
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=rf"^{path}: damaged; remove the folder {path.parent} and run again$"):
        kdray.results(bench.store.root).frame()


def test_the_lines_of_a_point_that_still_trains_are_read_without_the_one_that_is_being_written(tmp_path: Path) -> None:
    other = Bench(tmp_path)
    attempt = other.begin(0.1, steps=2)
    with curve.curve_file(attempt.path).open("a") as file:
        file.write('{"loss": 0.')
    found = collect(other.plan, other.store).curves[other.point(0.1).point]
    assert [step["step"] for step in found] == [1, 2]
