"""Models of metrics that do not fit are told by the grid's field and reference, before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from kdray.orchestration.probe import OWN, open_metric
from kdray.spec.errors import InputError
from tests.here import run_here
from tests.tiny import write_grid, write_model

REFERENCE = "hf:org/scorer@main"


def break_it(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_a_whole_model_is_opened_and_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kdray.score.metrics.support_standin import SupportStandin

    made = []
    monkeypatch.setattr(SupportStandin, "ids_of", None)  # it answers nothing
    init = SupportStandin.__init__
    monkeypatch.setattr(
        SupportStandin, "__init__", lambda self, *given, **params: made.append(self) or init(self, *given, **params)
    )
    folder = write_model(tmp_path / "m", layers=1)
    open_metric(
        "support_standin", {"words": 9}, {"model": folder}, {str(folder): REFERENCE}, "score.metrics.support_standin"
    )
    assert made[0].words == 9
    assert {weight.device.type for weight in made[0].model.parameters()} == {"meta"}


@pytest.mark.parametrize("field", ["score.metrics.support_standin", OWN])
def test_one_that_lacks_a_weight_is_called_as_the_grid_calls_it(field: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", layers=1)
    break_it(folder)
    with pytest.raises(InputError) as caught:
        open_metric("support_standin", {}, {"model": folder}, {str(folder): REFERENCE}, field)
    assert str(caught.value).startswith(f"{field}.model: {REFERENCE} lacks the weight model.norm.weight; ")
    assert str(tmp_path) not in str(caught.value)


def test_what_a_library_says_is_told_by_the_reference_too(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", layers=1)
    (folder / "tokenizer.json").write_text("[]")
    with pytest.raises(InputError) as caught:
        open_metric("selfcheck", {}, {"model": folder}, {str(folder): REFERENCE}, "score.metrics.selfcheck")
    assert str(caught.value).startswith(f"score.metrics.selfcheck: {REFERENCE} cannot be read (")
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("one_ray")
@pytest.mark.parametrize(
    ("broken", "field"), [("teacher", "teacher.model"), ("scorer", "score.metrics.support_standin.model")]
)
def test_a_run_ends_before_anything_is_trained(broken: str, field: str, tmp_path: Path) -> None:
    (tmp_path / "xsum.jsonl").write_text(
        json.dumps({"document": "Ada is in Paris .", "summary": "Ada is in Paris ."}) + "\n"
    )
    task, metric = (
        f"{{name: xsum, source: 'file:{tmp_path}/xsum.jsonl'}}",
        f"{{name: support_standin, model: 'file:{tmp_path}/scorer'}}",
    )
    write_model(tmp_path / "scorer", layers=1)
    path = write_grid(tmp_path, score=f"{{tasks: [{task}], metrics: [{metric}]}}")
    break_it(tmp_path / broken)
    with pytest.raises(InputError) as caught:
        run_here(path)
    assert str(caught.value).startswith(f"{field}: file:{tmp_path}/{broken} lacks the weight model.norm.weight; ")
    assert [folder.name for folder in sorted((tmp_path / "store").iterdir()) if any(folder.glob("*/DONE"))] == ["model"]
