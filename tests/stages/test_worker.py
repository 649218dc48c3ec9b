"""LoRA in the loop: only adapters move, and what is saved is the merged model."""

from __future__ import annotations

import torch

from kdray.data.rows import Rows
from kdray.models.head import ResponseModel
from kdray.models.load import load_folder
from kdray.stages.worker import _merged, _with_lora
from kdray.train.loop import Loop, Ranks
from tests.tiny import write_model, write_rows
from tests.train.test_loop import SETTINGS


def test_lora_moves_only_adapters_and_saves_a_plain_merged_model(tmp_path):
    model, tokenizer = load_folder(write_model(tmp_path / "m"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapted = _with_lora(model, rank=4)
    rows = Rows(write_rows(tmp_path / "rows", tokenizer))
    settings = SETTINGS.__class__(**(SETTINGS.__dict__ | {"alpha": 0.0, "lr": 1e-2}))
    loop = Loop(ResponseModel(adapted), rows, settings, signal=None, vocab_size=len(tokenizer), ranks=Ranks())
    curve = [metrics["loss"] for metrics in loop.steps()]
    merged = _merged(adapted)
    ids = torch.tensor([rows.input_ids(0)])
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-5)
    names = set(merged.state_dict())
    assert names == set(before), "the saved model is not a plain one"
    assert torch.equal(merged.state_dict()["model.norm.weight"], before["model.norm.weight"])
    assert not torch.equal(merged.state_dict()["model.layers.0.mlp.up_proj.weight"], before["model.layers.0.mlp.up_proj.weight"])
    assert curve[-1] < curve[0]
    assert _merged(model) is model or hasattr(model, "merge_and_unload")
