"""The room that soft labels will take is known before they are made, and is what they then take."""

from __future__ import annotations

import json

import pytest
import torch

from kdray.distill.labels import Teacher
from kdray.distill.signals import make_form
from kdray.models.head import Head
from kdray.plan.sizes import bytes_per_token, size_of_labels
from kdray.spec import declare
from kdray.spec.components import bind, components
from kdray.store import Store
from tests.conftest import TinyGrid
from tests.plan.conftest import MakePlan, seal

HIDDEN, TOKENS = 24, 7
FORMS = [
    *((name, {}) for name, form in components(declare.Form).items() if form.declared.kept),
    *(("hidden", {"dtype": dtype}) for dtype in ("float32", "float16", "int8")),
    ("logits", {"dtype": "float32"}),
    ("sampled", {"top": 5, "draws": 3}),
    ("topk", {"k": 9}),
]


@pytest.mark.parametrize("vocab", [120, 70_000])
@pytest.mark.parametrize(("name", "given"), FORMS)
def test_every_form_is_as_large_as_was_said(name, given, vocab):
    form = {"name": name, "params": bind(declare.Form, name, given, "soft_labels")}
    teacher = Teacher(Head(torch.nn.Linear(HIDDEN, vocab, bias=False), 1.0, None), vocab, 1.0)
    with torch.no_grad():
        kept = make_form(form).keep(torch.randn(TOKENS, HIDDEN), teacher, torch.Generator().manual_seed(0))
    assert sum(tensor.nbytes for tensor in kept.values()) == TOKENS * bytes_per_token(form, HIDDEN, vocab)


def test_a_plan_knows_sizes_as_soon_as_it_can(plan: MakePlan, tiny_grid: TinyGrid) -> None:
    made = plan()
    soften, store = made.heldout_labels.soft_labels, Store(tiny_grid.folder / "store")
    assert size_of_labels(soften, store) is None, "the config names no sizes"
    config = {"model_type": "llama", "hidden_size": 16, "vocab_size": 100, "dtype": "bfloat16"}
    (tiny_grid.folder / "teacher" / "config.json").write_text(json.dumps(config))
    made = plan()
    soften = made.heldout_labels.soft_labels
    assert str(size_of_labels(soften, store)) == "32 bytes a response token"
    seal(store, made.models["teacher"].inputs.student)
    assert size_of_labels(soften, store) is None, "the model in the store is looked at first"
    (store.get(made.models["teacher"].inputs.student.key).path / "config.json").write_text(json.dumps(config))
    store.begin(made.prepare.key, made.prepare.payload or {}).seal(response_tokens=1000)
    size = size_of_labels(soften, store)
    assert size.total == 1000 * 32 + 16 * 100 * 2, "with the head"
    assert str(size) == "about 0.0 MB (1,000 response tokens x 32 bytes)"
