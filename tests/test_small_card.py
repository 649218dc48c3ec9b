"""grids/qwen25_1.5b_24gb.yaml: it passes the check, fits its card by the price, and its shape trains."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from kdray.artifacts.rows import Rows
from kdray.artifacts.source import LabelSource
from kdray.check.checks import check_grid
from kdray.cost.cards import CARDS
from kdray.cost.shown import lines, priced
from kdray.distill.signals import open_signal
from kdray.models.adapters import merged, narrow, with_lora
from kdray.models.head import ResponseModel
from kdray.models.load import load_folder, weight_bytes
from kdray.orchestration.trainer import settings_of
from kdray.plan import make_plan
from kdray.spec.grid import Grid
from kdray.spec.load import parse_grid
from kdray.store import Outer, Store, io
from kdray.train.engines import Ranks
from kdray.train.loop import Loop
from tests.conftest import ROOT
from tests.test_paper_grids import COMMIT, SHAPES, fetch, grid_of, hub_id, sources_of
from tests.tiny import write_rows, write_tokenizer

NAME = "qwen25_1.5b_24gb"


@pytest.fixture
def outer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outer:
    """A store beside a hub cache with both models' real shapes."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")  # another machine has the card
    for role in ("student", "teacher"):
        fetch(tmp_path / "hub", grid_of(NAME), role)
    return Outer(tmp_path / "store")


def test_it_passes_the_check(outer: Outer) -> None:
    notes = check_grid(grid_of(NAME), outer, offline=True)
    assert all("is not pinned" in note or "every node of the cluster must have it" in note for note in notes)


def price(grid: Grid, outer: Outer) -> Any:
    return priced(make_plan(grid, outer), Store(outer.root), outer, CARDS["RTX4090"], 1, 11_000, None)


def test_it_fits_the_card_of_its_name_by_the_price(outer: Outer) -> None:
    own = price(grid_of(NAME), outer).own
    assert set(own.memory) == {"train", "soften teacher", "generate student", "measure student"}
    assert own.too_large() == {}
    assert {step.gpus for step in own.steps} == {1}
    parts = own.memory["train"].parts
    assert parts["weights"] == pytest.approx(2 * 1.31e9 + 4 * 0.233e9, rel=0.01)  # layers, embeddings


@pytest.mark.parametrize(
    ("line", "instead", "what"),
    [
        ("  method: lora ", "  method: full ", "train does not fit on RTX4090"),
        (", quantise: 4bit", "", "soften"),
    ],
)
def test_what_makes_it_fit_is_what_the_grid_says(line: str, instead: str, what: str, outer: Outer) -> None:
    text = (ROOT / "grids" / f"{NAME}.yaml").read_text()
    assert line in text
    other = price(parse_grid(text.replace(line, instead)), outer)
    if what == "soften":  # 15 GB of weights are left out of nothing: they fit, with half of the room
        ours = price(grid_of(NAME), outer).own.memory["soften teacher"].total
        assert other.own.memory["soften teacher"].total > 2.5 * ours
    else:
        assert any(what in text for text in lines(other))


@pytest.mark.slow
def test_its_shape_trains_with_small_weights(tmp_path: Path, outer: Outer) -> None:
    """The grid's own settings of a point at alpha 1, on models of the same form; three steps of its batch."""
    grid = grid_of(NAME)
    io.put_json(outer.lockfile, dict.fromkeys(sources_of(grid), COMMIT), durable=False)
    point = next(made for made in make_plan(grid, outer).points if made.point.alpha == 1)
    settings = replace(settings_of(point.train.params), unit="steps", length=3.0)
    assert (settings.method, settings.dtype, settings.rank, settings.packing) == ("lora", "bfloat16", 16, True)
    folders = [_small(grid, role, tmp_path / role) for role in ("student", "teacher")]
    student, tokenizer = load_folder(folders[0])
    rows = Rows(write_rows(tmp_path / "rows", tokenizer))
    model = with_lora(student, 16, settings.seed)
    narrow(model, torch.bfloat16)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    taught = LabelSource(str(folders[1]), {"name": "online", "params": {}}, "bfloat16")
    signal = open_signal([taught], rows, "cpu", torch.bfloat16)
    loop = Loop(
        ResponseModel(model),
        rows,
        settings,
        signal=signal,
        vocab_size=len(tokenizer),
        ranks=Ranks(),
        micro_batch=grid.runtime.micro_batch,
    )
    losses = [metrics["loss"] for metrics in loop.steps()]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    kept = merged(folders[0], 16, loop.engine.weights())
    assert {weight.dtype for weight in kept.state_dict().values()} == {torch.float32}


def _small(grid: Grid, role: str, folder: Path) -> Path:
    """A model of a role's form, with an eightieth of its width and two of its layers."""
    tokenizer = write_tokenizer(folder)
    shape = json.loads((SHAPES / f"{hub_id(grid, role).partition('/')[2]}.json").read_text())
    heads, keys = shape["num_attention_heads"], shape["num_key_value_heads"]
    shape |= {"hidden_size": 8 * heads, "intermediate_size": 96, "num_hidden_layers": 2, "num_key_value_heads": keys}
    shape |= {"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(len(role))
    Qwen2ForCausalLM(Qwen2Config(**shape)).save_pretrained(folder)
    return folder


def test_quantised_weights_are_counted_as_what_they_take(tmp_path: Path) -> None:
    folder = _small(grid_of(NAME), "teacher", tmp_path / "model")
    whole, eight, four = (weight_bytes(folder, torch.bfloat16, kept) for kept in (None, "8bit", "4bit"))
    model, _ = load_folder(folder)
    layers = sum(w.numel() for name, w in model.named_parameters() if ".layers." in name and w.ndim == 2)
    assert (whole - eight, whole - four) == (layers, pytest.approx(layers * 1.47, abs=1))
