"""`kdray lens train` and the grid's step are one protocol: the same annotated rows and model make the same lens."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kdray.artifacts.lens import KEPT_OUT
from kdray.lens.align import read_aligned
from kdray.lens.classifier import Lens
from kdray.lens.factual import measured_rate
from kdray.models.load import load_folder
from kdray.orchestration.items import Part
from kdray.spec.refs import parse_reference
from kdray.stages import lens
from kdray.store import Outer
from tests.conftest import Run
from tests.tiny import PLACES, write_model

pytestmark = pytest.mark.slow
WINDOW = 3


def wrong(here: str, there: str) -> list[list[int]]:
    return [[13, 13 + len(there)]] if here != there else []


def write_annotations(path: Path) -> Path:
    """Each place's document with a right and four wrong responses."""
    rows = [
        {
            "id": i,
            "document": f"Ada is in {here} .",
            "response": f"Ada lives in {there} now .",
            "spans": [[13, 13 + len(there)]] * (here != there),
        }
        for i, (here, there) in enumerate((here, there) for here in PLACES for there in PLACES[:5])
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make_parts(_: str, cuts: Sequence[Sequence[int]], attempt: Any, make: Callable[[], Any], *__: Any) -> None:
    """What the pipeline does, in this process and from the last cut to the first: they come in any order."""
    maker = make()
    for i in reversed(range(len(cuts))):
        maker(Part(key=str(i), target=attempt.path, index=i, rows=list(cuts[i])))


class Here:
    """The step on a folder with a model, without a run around it."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root, self.model = root, model
        self.said: list[str] = []
        self.facts: dict[str, Any] = {}

    def __call__(self, name: str, source: Path | None = None, trained: Path | None = None, **params: Any) -> Path:
        outer = Outer(self.root / "cache")
        ref = parse_reference(f"file:{source}", "lens.source") if source else None
        shared: dict[str, Any] = {"dtype": "float32"}
        if ref:
            shared |= {"annotations": {"name": "jsonl"}, "source": outer.identify(ref), "limit": None, "max_words": 700}
            shared |= {"template": {"name": "alpaca", "params": {}}}
        files = {"trained": parse_reference(f"file:{trained}")} if trained else {}
        shared |= {name: outer.identify(given) for name, given in files.items()}
        step: Any = SimpleNamespace(
            params=shared | params, inputs=SimpleNamespace(model="model", annotated=None), source=ref, files=files
        )
        attempt: Any = SimpleNamespace(path=self.root / name)
        attempt.path.mkdir()
        work: Any = SimpleNamespace(
            folder=lambda _: self.model,
            outer=outer,
            plan=SimpleNamespace(grid=SimpleNamespace(family="toy")),
            progress=SimpleNamespace(say=self.said.append),
            gpus_for=lambda *_: 0,
            seal=lambda *_, **facts: self.facts.update(facts),
            fail=lambda _, reason: pytest.fail(reason),
        )
        lens.make_lens(step, attempt, work)
        return attempt.path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    monkeypatch.setattr(lens, "make_parts", make_parts)
    return Here(tmp_path, write_model(tmp_path / "model", layers=2))


def test_the_command_and_the_step_make_the_same_lens(here: Here, run: Run, tmp_path: Path) -> None:
    source = write_annotations(tmp_path / "own.jsonl")
    by_step = here("step", source, window=WINDOW)
    command = ("--model", f"file:{here.model}", "--template", "alpaca", "--window", WINDOW, "--to", "command")
    code, stdout, stderr = run("lens", "train", f"jsonl:{source}", *command)
    assert code == 0, stderr
    ours, theirs = Lens.load(tmp_path / "command"), Lens.load(by_step)
    torch.testing.assert_close(ours.weights, theirs.weights, rtol=0, atol=1e-12)
    assert ours.intercept == pytest.approx(theirs.intercept, abs=1e-12)
    assert ours.documents.sketches == theirs.documents.sketches
    assert 0 < len(ours.documents.sketches) < len(PLACES)
    apart = {
        "family",
        "model",
        "annotations",
        "source",
        "sha256",
        "fit",
    }  # where each is from, and where its solver stopped
    numbers = [{name: value for name, value in made.record.items() if name not in apart} for made in (ours, theirs)]
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-9)
    assert read_aligned(tmp_path / "command" / KEPT_OUT) == read_aligned(by_step / KEPT_OUT)
    assert {row.document for row in read_aligned(by_step / KEPT_OUT)}.isdisjoint(theirs.documents.sketches)
    assert here.facts["auroc_test"] == theirs.record["auroc_test"]
    said = here.said[-1].removeprefix("lens: ")
    assert stdout.split(": ", 1)[1].split() == said.split()  # in the same words
    assert not list(by_step.glob("part-*"))


def test_a_lens_of_the_command_is_tested_in_a_grid_by_what_was_kept_out(here: Here, run: Run, tmp_path: Path) -> None:
    source = write_annotations(tmp_path / "own.jsonl")
    command = ("--model", f"file:{here.model}", "--template", "alpaca", "--window", WINDOW, "--to", "mine")
    assert run("lens", "train", f"jsonl:{source}", *command)[0] == 0
    mine = Lens.load(tmp_path / "mine")
    made = here("given", trained=tmp_path / "mine")
    assert Lens.load(made).id == mine.id
    assert here.facts["auroc_test"] == pytest.approx(mine.record["auroc_test"])
    assert (here.facts["auroc_before"], here.facts["examples"]) == (mine.record["auroc_test"], 10)
    model, tokenizer = load_folder(here.model)
    prompt, output = (
        tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in ("Read : Ben is in Rome .\n", "Ben is there now .")
    )
    answer = {"example": 0, "source": "Ben is in Rome .", "input_ids": prompt, "output_ids": output}
    rate = measured_rate(model, tokenizer, [answer], made)
    assert rate.scores["fr_auroc"]["value"] == pytest.approx(mine.record["auroc_test"])
    assert rate.scores["fr_auroc"]["n"] == mine.record["windows_tested"]
    # All the annotations, the fitted ones among them: the same test, of the documents that did not train it.
    both = here("tested", source, tmp_path / "mine")
    assert here.facts["auroc_test"] == pytest.approx(mine.record["auroc_test"])
    assert Lens.load(both).record["windows_tested"] == mine.record["windows_tested"]


def test_a_lens_without_kept_out_responses_is_not_tested(here: Here, tmp_path: Path) -> None:
    Lens(torch.ones(2, 4), 0.0, WINDOW).save(tmp_path / "mine")
    made = here("given", trained=tmp_path / "mine")
    assert Lens.load(made).record["auroc_test"] is None
    assert here.said[-1].endswith("not tested")
