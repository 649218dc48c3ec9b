"""The command line: exit codes, one line for wrong input, and plans without anything heavy."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from kdray import cli
from kdray.artifacts.answers import write_answers
from kdray.plan import make_plan
from kdray.spec import load_grid
from kdray.store import Outer, Store
from tests.conftest import ROOT, Run, TinyGrid, tree_of
from tests.plan.conftest import seal

GRIDS = sorted((ROOT / "grids").glob("*.yaml"))


def kdray(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real command, as the shell runs it."""
    command = [str(Path(sys.executable).with_name("kdray")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


# wrong input


WRONG = {
    "no file": "plan nowhere.yaml",
    "a folder": "check .",
    "an empty file": "check empty.yaml",
    "a misspelt field": "plan misspelt.yaml",
    "no data": "plan nodata.yaml",
    "no data, status": "status nodata.yaml",
    "no data, run": "run nodata.yaml",
    "no data, gc": "gc nodata.yaml",
    "no weights": "check noweights.yaml --offline",
    "unresolved, gc": "gc --dry-run unresolved.yaml",
    "unknown ids": "why 0123456789ab ba9876543210",
    "ids that are patterns": "why * **",
    "no such store": "why a b --store nowhere",
    "one id": "why 0123456789ab",
    "why no file": "why nowhere.yaml",
    "why without a store": "why grid.yaml",
    "why of data that are not there": "why nodata.yaml",
    "a grid with too long a name": f"plan {'a' * 300}.yaml",
    "a store with too long a name": "plan longstore.yaml",
    "a store that is the root": "plan rootstore.yaml",
    "a store with a zero byte": "status zerostore.yaml",
    "a store of nobody": "gc nobody.yaml",
    "a store that is a file": "report filestore.yaml",
    "a store in a bucket": "plan bucketstore.yaml",
    "a store in a bucket, gc": "gc bucketstore.yaml",
    "a store in a variable": "status variablestore.yaml",
    "scores in a bucket": "score --model file:student --tasks xsum --store s3://bucket/x",
    "scores in a variable": "score --model file:student --tasks xsum --store $SCRATCH/x",
    "scores tracked in a variable": "score --model file:student --tasks xsum --mlflow sqlite:///$SCRATCH/x.db",
    "ids in a bucket": "why a b --store s3://bucket/x",
    "a job's relative folder": "submit grid.yaml --folder x",
    "a job's folder in a bucket": "submit grid.yaml --folder gs://x",
    "half a character": "plan half.yaml",
    "a scheme that MLflow does not know": "track --serve nope.yaml",
}


@pytest.mark.parametrize("command", WRONG.values(), ids=[name.replace(" ", "-") for name in WRONG])
def test_wrong_input_is_one_line_and_code_2_and_writes_nothing(command: str, run: Run, tiny_grid: TinyGrid) -> None:
    (tiny_grid.folder / "empty.yaml").write_text("")
    tiny_grid({"train.stepps": 3}, "misspelt.yaml")
    tiny_grid({"data.source": "file:nowhere.jsonl"}, "nodata.yaml")
    tiny_grid({"student.model": f"file:{tiny_grid.folder}/bare"}, "noweights.yaml")
    (tiny_grid.folder / "bare").mkdir()
    tiny_grid({"student.model": "hf:org/student"}, "unresolved.yaml")
    for name, store in {"long": "HERE/" + "a" * 300, "root": "/", "zero": "a\0b", "file": "HERE/rows.jsonl"}.items():
        tiny_grid({"runtime.store": store}, f"{name}store.yaml")
    tiny_grid()
    for name, store in {"bucket": "s3://bucket/x", "variable": "$SCRATCH/x"}.items():
        tiny_grid({"runtime.store": store}, f"{name}store.yaml")
    tiny_grid({"runtime.store": "~nosuchuser/x"}, "nobody.yaml")
    tiny_grid({"runtime.mlflow": "nope://host"}, "nope.yaml")
    (tiny_grid.folder / "half.yaml").write_text(tiny_grid.text().replace("Does it work?", '"\\ud800"'))
    before = tree_of(tiny_grid.folder)
    code, stdout, stderr = run(*command.split())
    assert (code, stdout) == (2, "")
    assert re.fullmatch(r"error [^\n]+: [^\n]+; [^\n]+\n", stderr)
    assert tree_of(tiny_grid.folder) == before


@pytest.mark.parametrize("command", ["plann grid.yaml", "plan --jsn grid.yaml", "plan", "why", "gc", "plan a.yaml b.yaml"])
def test_wrong_usage_is_code_2_without_a_traceback(command: str, run: Run) -> None:
    code, stdout, stderr = run(*command.split())
    assert (code, stdout) == (2, "")
    assert "Usage: kdray" in stderr
    assert "Traceback" not in stderr


def test_what_a_user_wrote_is_never_read_as_markup(run: Run, tiny_grid: TinyGrid) -> None:
    tiny_grid({"train.dtype": "[bold]x[/]"})
    assert '"[bold]x[/]"' in run("plan", "grid.yaml")[2]


def test_an_interruption_is_code_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "load_grid", interrupted)
    code, stdout, stderr = run("plan", "grid.yaml")
    assert (code, stdout, stderr.count("\n")) == (130, "", 1)
    assert stderr.startswith("interrupted: nothing finished is lost")


def test_a_run_that_is_not_complete_is_code_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def incomplete(_: Path) -> None:
        raise typer.Exit(cli.FAILED)

    monkeypatch.setattr(cli, "load_grid", incomplete)
    assert run("plan", "grid.yaml")[0] == 1


def test_a_bug_of_ours_keeps_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "load_grid", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("plan", "grid.yaml")


# the real command


def test_the_real_command_says_what_is_wrong(tiny_grid: TinyGrid) -> None:
    path = tiny_grid({"axes.alpha": [-1]})
    before = tree_of(tiny_grid.folder)
    answer = kdray("run", path)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == "error axes.alpha.0: -1; must be greater than or equal to 0\n"
    assert tree_of(tiny_grid.folder) == before


def test_the_real_command_knows_its_commands() -> None:
    answer = kdray("plann")
    assert answer.returncode == 2
    assert "No such command 'plann'" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.slow
def test_without_a_network_the_check_says_so(tiny_grid: TinyGrid) -> None:
    path = tiny_grid({"teacher.model": "hf:org/teacher"})
    answer = kdray("check", path, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="0")
    assert answer.returncode == 2
    assert re.fullmatch(r"error teacher\.model: the hub does not give hf:org/teacher \(.+\); check the id, the network.*\n", answer.stderr)
    assert kdray("check", path, "--offline").returncode == 0


def test_the_version_is_the_packages(run: Run) -> None:
    assert run("--version") == (0, f"kdray {importlib.metadata.version('kdray')}\n", "")
    assert run("--version", "plan")[0] == 0


def test_help_has_a_line_for_every_command() -> None:
    answer = kdray("--help", COLUMNS="300", TERMINAL_WIDTH="300")
    names = {command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback}
    names |= {group.name for group in cli.app.registered_groups if group.name}
    assert {"check", "plan", "run", "status", "report", "track", "gc", "why"} <= names
    listed = dict(re.findall(r"^│ ([a-z]+) {2,}([^│]*\S)", answer.stdout, re.MULTILINE))
    assert set(listed) == names
    assert all(len(line) > 20 for line in listed.values())
    assert "Exit codes: 0 done" in answer.stdout


def test_looking_at_a_grid_needs_nothing_heavy(tiny_grid: TinyGrid) -> None:
    code = f"""
import sys
from kdray.cli import main
for command in ["plan", "plan --json", "status", "check --offline", "gc --dry-run"]:
    sys.argv = ["kdray", *command.split(), {str(tiny_grid())!r}]
    main()
    heavy = {{"torch", "ray", "transformers", "mlflow", "datasets", "numpy", "pyarrow", "huggingface_hub"}}
    assert not heavy.intersection(sys.modules), (command, heavy.intersection(sys.modules))
import kdray.run  # what a mistake in `kdray run` or `score` must not wait for
assert not heavy.intersection(sys.modules), heavy.intersection(sys.modules)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")


# what it shows


def test_the_plan_as_json_has_every_step_and_point(run: Run, tiny_grid: TinyGrid) -> None:
    path = tiny_grid()
    before = tree_of(tiny_grid.folder)
    code, stdout, stderr = run("plan", "--json", path)
    shown = json.loads(stdout)
    made = make_plan(load_grid(path), Outer(tiny_grid.folder / "store"))
    assert (code, stderr) == (0, "")
    assert (shown["grid"], shown["store"]) == ("tiny", str(tiny_grid.folder / "store"))
    assert shown["steps"] == [
        {
            "kind": step.kind,
            "slug": step.slug,
            "id": step.id,
            "state": "missing",
            "inputs": {name: needed.id for name, needed in step.inputs.named.items()},
        }
        for step in made.steps()
    ]
    assert [(p["alpha"], p["lr"], p["batch"], p["seed"], p["id"]) for p in shown["points"]] == [
        (p.point.alpha, p.point.lr, p.point.batch, p.point.seed, p.train.id) for p in made.points
    ]
    assert tree_of(tiny_grid.folder) == before


def test_an_unresolved_plan_is_json_too(run: Run, tiny_grid: TinyGrid) -> None:
    shown = json.loads(run("plan", "--json", tiny_grid({"student.model": "hf:org/student"}))[1])
    assert {(step["id"], step["state"]) for step in shown["steps"] if step["kind"] == "train"} == {(None, "unresolved")}


def test_the_table_of_the_plan_shows_ids_and_states(run: Run, tiny_grid: TinyGrid) -> None:
    path = tiny_grid()
    made = make_plan(load_grid(path), Outer(tiny_grid.folder / "store"))
    seal(Store(tiny_grid.folder / "store"), made.prepare)
    _, stdout, _ = run("plan", path)
    assert re.search(rf"prepare +rows +{made.prepare.id} +done", stdout)
    assert re.search(rf"teach +teacher-lora +{made.models['teacher'].id} +missing", stdout)


def test_status_counts_steps_by_state(run: Run, tiny_grid: TinyGrid) -> None:
    path = tiny_grid()
    made = make_plan(load_grid(path), Outer(tiny_grid.folder / "store"))
    seal(Store(tiny_grid.folder / "store"), made.prepare, made.points[0].train)
    shown = json.loads(run("status", "--json", path)[1])
    assert shown["steps"]["prepare"] == {"done": 1}
    assert shown["steps"]["train"] == {"done": 1, "missing": 3}
    assert [point["state"] for point in shown["points"]] == ["done", "missing", "missing", "missing"]


def test_why_names_the_field_that_differs(run: Run, tiny_grid: TinyGrid) -> None:
    made = make_plan(load_grid(tiny_grid()), Outer(tiny_grid.folder / "runs" / "tiny"))
    store = Store(tiny_grid.folder / "runs" / "tiny")
    one, other = seal(store, *(point.train for point in made.points[:2]))
    for options in ([], ["--store", store.root]):
        assert run("why", one.key.id, other.key.id, *options) == (0, "lr: 0.0001 | 0.001\n", "")
        assert run("why", one.key.id, one.key.id, *options) == (0, "the same\n", "")


def test_gc_says_what_it_would_remove_and_then_removes_it(run: Run, tiny_grid: TinyGrid) -> None:
    store = Store(tiny_grid.folder / "store")
    old = make_plan(load_grid(tiny_grid()), Outer(store.root))
    seal(store, *old.steps())
    path = tiny_grid({"axes.lr": [1e-3], "teacher.tune.lr": 5e-3})
    kept = {step.id for step in make_plan(load_grid(path), Outer(store.root)).steps()}
    gone = [store.folder(step.key) for step in old.steps() if step.id not in kept]
    before = tree_of(store.root)
    code, stdout, _ = run("gc", "--dry-run", path)
    assert code == 0
    assert stdout.count("would remove ") == len(gone) > 0
    assert all(f"would remove {folder} (0.0 MB)" in stdout for folder in gone)
    after = tree_of(store.root)
    assert {name: after[name] for name in before} == before
    code, stdout, _ = run("gc", path)
    assert (code, stdout.count("removed ")) == (0, len(gone))
    assert not any(folder.exists() for folder in gone)
    assert all(store.get(step.key) for step in old.steps() if step.id in kept)


def test_gc_removes_nothing_where_one_of_the_stores_cannot_be_looked_at(run: Run, tiny_grid: TinyGrid) -> None:
    store = Store(tiny_grid.folder / "store")
    old = make_plan(load_grid(tiny_grid({"axes.lr": [5e-3]})), Outer(store.root))
    seal(store, *old.steps())
    other = tiny_grid({"student.model": "hf:org/student", "runtime.store": "HERE/other"}, "other.yaml")
    code, stdout, _ = run("gc", tiny_grid(), other)
    assert (code, stdout) == (2, "")
    assert all(store.get(step.key) for step in old.steps())


@pytest.mark.parametrize("command", ["plan", "status", "report", "gc --dry-run", "track"])
def test_a_damaged_done_is_one_line(command: str, run: Run, tiny_grid: TinyGrid) -> None:
    path = tiny_grid()
    store = Store(tiny_grid.folder / "store")
    [sealed] = seal(store, make_plan(load_grid(path), Outer(store.root)).points[0].train)
    (sealed.folder / "DONE").write_text("{}")
    code, stdout, stderr = run(*command.split(), path)
    assert (code, stdout) == (2, "")
    assert re.fullmatch(r"error [^\n]+/DONE: damaged; remove the folder [^\n]+\n", stderr)


def test_a_view_that_cannot_be_written_fails_track(run: Run, tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    from kdray.track.connection import TrackingError
    from kdray.track.mirror import Mirror

    def refuse(_: Mirror) -> None:
        raise TrackingError("no answer\nat all")

    monkeypatch.setattr(Mirror, "update", refuse)
    monkeypatch.setattr(Mirror, "finish", refuse)
    code, stdout, stderr = run("track", tiny_grid())
    assert (code, stdout) == (cli.FAILED, "")
    assert stderr == "MLflow cannot be written (no answer); make it reachable, or correct runtime.mlflow\n"


@pytest.mark.parametrize("path", GRIDS, ids=[path.name for path in GRIDS])
def test_every_shipped_grid_can_be_run(path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    if "device: gpu" in path.read_text():
        assert "error runtime.device: gpu, but this machine has none" in run("check", "--offline", path)[2]
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265")  # it is to be submitted
    code, stdout, stderr = run("check", "--offline", path)
    assert (code, stderr) == (0, "")
    assert re.search(r"fine, \d+ points", stdout)


# lookback lens


@pytest.mark.slow
def test_lens_commands_on_a_tiny_model(run: Run, tmp_path: Path) -> None:
    from kdray.data.example import Example
    from kdray.data.templates.alpaca import alpaca
    from kdray.lens.annotations import sketch
    from kdray.models.load import load_tokenizer
    from tests.tiny import PLACES, write_model

    tokenizer = load_tokenizer(write_model(tmp_path / "model", layers=2))
    lines = [
        {
            "id": i,
            "document": f"Ada is in {here} .",
            "response": f"Ada lives in {there} now .",
            "spans": [] if here == there else [[13, 18]],
        }
        for i, (here, there) in enumerate((here, there) for here in PLACES for there in (here, "Delhi"))
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    model = ("--model", f"file:{tmp_path}/model", "--template", "alpaca")
    code, stdout, stderr = run("lens", "train", "jsonl:own.jsonl", *model, "--to", "lens", "--window", 3)
    assert code == 0, stderr
    assert "AUROC" in stdout
    kept_out = {row["document"][0] for row in json.loads((tmp_path / "lens" / "kept_out.json").read_text())}
    known = [line for line in lines if sketch(str(line["document"]))[0] not in kept_out]
    assert 0 < len(known) < len(lines)
    code, stdout, _ = run("lens", "table", "jsonl:own.jsonl", "--target", "jsonl:./own.jsonl", *model, "--json")
    assert code == 0
    tables = json.loads(stdout.splitlines()[-1])
    assert tables["annotations"][0]["examples"] == 12
    assert len(tables["AUROC"]) == 12  # six methods in a model of two layers, both ways
    (tmp_path / "answers").mkdir()
    rows = [
        {
            "example": i,
            "source": f"Ben is in {place} .",
            "question": "Who?",
            "references": ["Ben"],
            "wrong": [],
            "answer": f"Ben lives in {place} now . He is there .",
            "error": None,
            "thought_ids": [],
            "input_ids": tokenizer(alpaca(Example("Who?", f"Ben is in {place} .", ""), tokenizer))["input_ids"],
            "output_ids": tokenizer(f"Ben lives in {place} now .")["input_ids"],
        }
        for i, place in enumerate(PLACES)
    ]
    rows += [rows[0] | {"example": 9, "source": known[0]["document"], "answer": "", "input_ids": [3], "output_ids": [4, 5]}]
    write_answers(tmp_path / "answers", 0, rows, 1.0)
    code, stdout, stderr = run("lens", "rate", "answers", *model, "--by", "lens", "--labelled", "jsonl:own.jsonl", "--json")
    assert code == 0
    rate = json.loads(stdout.splitlines()[-1])
    assert rate["scores"]["fr"]["n"] == len(PLACES)
    assert rate["facts"]["left_out"]["training_documents"] == 1
    record = json.loads((tmp_path / "lens" / "lens.json").read_text())["record"]
    assert rate["scores"]["auroc"]["n"] == record["windows_tested"]  # of the documents that were kept out of the training
    assert rate["scores"]["auroc"]["value"] == pytest.approx(record["auroc_test"])
    (tmp_path / "known.jsonl").write_text("".join(json.dumps(line) + "\n" for line in known))
    code, stdout, stderr = run("lens", "rate", "answers", *model, "--by", "lens", "--labelled", "jsonl:known.jsonl", "--json")
    assert code == 0
    assert json.loads(stdout.splitlines()[-1])["scores"]["auroc"]["n"] == 0
    assert "no AUROC of jsonl:known.jsonl: every document trained the lens" in stderr
    (tmp_path / "empty.jsonl").write_text("")
    for command in ("train --to other", "table", "rate answers --by lens --labelled"):
        name, *options = command.split()
        code, _, stderr = run("lens", name, *options, "jsonl:empty.jsonl", *model)
        assert (code, stderr.splitlines()[-1]) == (cli.WRONG_INPUT, "error annotations: no usable response of 0; see docs/lens.md")
    metric = f"{{name: support_standin, model: 'file:{tmp_path}/model'}}"
    code, stdout, _ = run("lens", "annotate", "answers", "--metric", metric, "--threshold", 1e9, "--to", "marked.jsonl")
    assert code == 0
    marked = [json.loads(line) for line in (tmp_path / "marked.jsonl").read_text().splitlines()]
    assert [row["spans"] for row in marked] == [[[0, 19 + len(place)], [20 + len(place), 33 + len(place)]] for place in PLACES]
    code, stdout, _ = run("lens", "table", "jsonl:own.jsonl", *model, "--no-baselines", "--metric", metric, "--json")
    assert code == 0
    [judged] = json.loads(stdout.splitlines()[-1])["a metric on predefined spans"]
    assert judged["spans"] == 7 + 5 * 3  # clean answers, Delhi's twice; elsewhere what is wrong, and the text on both sides
    assert 0 <= judged["AUROC"] <= 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("lens train jsonl:nowhere.jsonl --model file:absent --to lens", "annotations: no file nowhere.jsonl"),
        ("lens table jsonl:nowhere.jsonl --model file:absent", "annotations: no file nowhere.jsonl"),
        ("lens rate nowhere --model file:absent --by nowhere", "lens: no lens in nowhere"),
        ("lens import nowhere.pkl", "no file nowhere.pkl"),
        ("lens annotate nowhere --metric rouge --to x.jsonl", "--metric: 'rouge' is not about an answer's source"),
        ("lens table jsonl:nowhere --model file:nowhere --metric hhemm", "did you mean 'hhem'?"),
        ("lens annotate nowhere --metric support_standin,hhem --to x.jsonl", "--metric: 'support_standin,hhem'; name one metric"),
        ("lens train jsonl:nowhere --model file:absent --to file", "--to: file is no folder"),
        ("lens train jsonl:nowhere --model file:absent --to file/lens", "--to: "),
        ("lens train jsonl:nowhere --model file:absent --to=", "--to: empty"),
        ("lens import --to=", "--to: empty"),
        ("lens import nowhere.pkl --to file", "--to: file is no folder"),
        ("lens import nowhere.pkl --to s3://bucket/lens", "--to: 's3://bucket/lens' is an address"),
        ("lens train jsonl:nowhere --model file:absent --to file:lens", "--to: 'file:lens' is a reference; write the path alone"),
        ("lens annotate nowhere --metric hhem --to $HOME/x.jsonl", "--to: '$HOME/x.jsonl': $HOME is not expanded here"),
        ("lens table jsonl:s3://bucket/x --model file:absent", "annotations: 's3://bucket/x' is an address"),
        ("lens annotate nowhere --metric hhem --to folder", "--to: folder is no file"),
        ("lens annotate nowhere --metric hhem --to absent/x.jsonl", "--to: no folder absent"),
        ("lens annotate nowhere --metric hhem --to=", "--to: empty"),
    ],
)
def test_wrong_lens_input_is_one_line(run: Run, tmp_path: Path, arguments: str, message: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    code, _, stderr = run(*arguments.split())
    assert code == cli.WRONG_INPUT
    assert message in stderr
    assert stderr.count("\n") == 1


def test_a_plan_says_how_many_steps_an_epoch_has(run: Run, tiny_grid: TinyGrid) -> None:
    path = tiny_grid({"axes.batch": [8, 16]})
    made = make_plan(load_grid(path), Outer(tiny_grid.folder / "store"))
    assert made.prepare
    attempt = Store(tiny_grid.folder / "store").begin(made.prepare.key, made.prepare.payload or {})
    attempt.seal([], train=11424)
    assert run("plan", path)[1].splitlines()[-1] == "steps an epoch of 11,424 rows: 1428 at batch 8, 714 at batch 16"
    assert json.loads(run("plan", "--json", path)[1])["training_rows"] == 11424


def test_a_plan_is_shown_in_columns(run: Run, tiny_grid: TinyGrid) -> None:
    code, stdout, _ = run("plan", tiny_grid())
    header, *lines, epochs = stdout.splitlines()
    assert epochs == "steps an epoch: known once the data are prepared"
    assert (code, header.split()) == (0, ["step", "name", "id", "state", "size"])
    assert {len(line) for line in lines} == {len(header)}
    steps = list(make_plan(load_grid(tiny_grid()), Outer(tiny_grid.folder / "store")).steps())
    assert [line.split()[:4] for line in lines] == [[step.kind, step.slug, step.id, "missing"] for step in steps]
    assert {line.index(" missing ") for line in lines} == {header.index(" state ")}
