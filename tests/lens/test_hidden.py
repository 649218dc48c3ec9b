"""Guides on hidden states: trained by the lens's protocol, on the very features that they see while they guide."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kdray.lens.align import Aligned
from kdray.lens.annotations import sketch
from kdray.lens.classifier import fit
from kdray.lens.evaluate import auroc, rows_of
from kdray.lens.features import States, Table, hidden_states
from kdray.lens.guided import Sampler, decode_guided
from kdray.lens.guides import HiddenGuide, Part, open_guide
from kdray.lens.hidden import candidates, read_states, train_guide
from kdray.lens.ratios import Passage
from kdray.lens.training import fifths, in_words
from kdray.spec.errors import InputError
from tests.lens.families import tiny

PROMPT, CONTEXT = list(range(5, 25)), 15


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
@pytest.mark.parametrize("part", ["residual", "attention"])
@torch.no_grad()
def test_a_guide_is_trained_on_what_it_sees_while_it_guides(family: str, part: Part) -> None:
    model, width = tiny(family), 32
    guide = HiddenGuide(torch.randn(width, generator=torch.Generator().manual_seed(2)), 0.3, layer=2, part=part)
    found = decode_guided(model, PROMPT, CONTEXT, guide, Sampler(candidates=3, chunk=4), 12, ends=())
    passage = Passage([*PROMPT, *found.answer], CONTEXT, len(PROMPT))
    [read] = hidden_states({"x": States([2], part)})(model, [passage])["x"]
    torch.testing.assert_close(torch.cat(found.seen), read, rtol=1e-4, atol=1e-5)
    table = read_states(model, [Aligned("a", (), passage, (False,) * 12)], [2], part, 4)[2]
    assert table.features.shape == (9, width)
    for at, choice in enumerate(found.choices):  # the kept chunks are windows of the answer
        logit = table.features[4 * at] @ guide.weights.numpy() + guide.intercept
        assert choice.scores[choice.kept] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)


def table(noise: float, documents: int = 25, rows: int = 12, seed: int = 0) -> Table:
    """Hidden states of which the first tells what is factual, but for some noise, in documents of one place each."""
    dice = np.random.default_rng(seed)
    features = dice.normal(size=(documents * rows, 6)).astype(np.float32)
    factual = (features[:, 0] + dice.normal(0, noise, len(features)) > 0).astype(int)
    return Table(features, factual, [sketch(f"Document {i}") for i in range(documents) for _ in range(rows)])


@pytest.mark.slow
def test_the_protocol_is_that_of_a_lens() -> None:
    data = table(0.5)
    guide = train_guide({3: data}, "attention", 4, {"model": "toy"})
    inside, outside = fifths(data)
    model = fit(inside)
    assert (guide.layer, guide.part) == (3, "attention")
    np.testing.assert_allclose(guide.weights.numpy(), np.asarray(model.coef_)[0])
    record = dict(guide.record)
    assert record.pop("fit")["steepness"] < 1e-9
    assert record.pop("auroc_test_stderr") > 0
    assert record == {
        "model": "toy",
        "window": 4,
        "protocol": "fitted on four fifths of the documents, tested on the fifth",
        "windows_fitted": 240,
        "documents_fitted": 20,
        "auroc_train": pytest.approx(auroc(inside.factual, model.decision_function(inside.features))),
        "auroc_test": pytest.approx(auroc(outside.factual, model.decision_function(outside.features))),
        "windows_tested": 60,
        "documents_tested": 5,
    }
    assert "AUROC" in in_words(guide.record)
    with pytest.raises(InputError, match="annotations: responses to one document alone"):
        train_guide({3: rows_of(data, np.arange(len(data.factual)) < 12)}, "residual", 4, {})
    with pytest.raises(InputError, match="annotations: only factual spans"):
        train_guide({3: replace(data, factual=data.factual * 0 + 1)}, "residual", 4, {})


@pytest.mark.slow
def test_a_layer_is_chosen_by_documents_that_are_fitted(tmp_path: Path) -> None:
    good, bad = table(0.3), table(3.0)
    inside, outside = fifths(good)
    test = set(outside.documents)
    kept_out = np.array([document in test for document in good.documents])
    # The one that is worse inside would win if the test's documents chose
    tempting = replace(
        bad, factual=bad.factual.copy(), features=np.where(kept_out[:, None], good.features, bad.features)
    )
    tempting.factual[kept_out] = good.factual[kept_out]
    guide = train_guide({1: tempting, 2: good}, "residual", 8, {})
    assert guide.layer == 2
    chosen = guide.record["layer_auroc"]
    assert chosen["2"] > chosen["1"] + 10
    first, second = fifths(inside)
    assert chosen["2"] == pytest.approx(auroc(second.factual, fit(first).decision_function(second.features)))
    guide.save(tmp_path / "g.safetensors")
    again = open_guide(tmp_path / "g.safetensors")
    assert isinstance(again, HiddenGuide)
    assert again.record == guide.record
    assert torch.equal(again.weights, guide.weights)
    inner = set(second.documents)
    one_kind = replace(good, factual=np.where([document in inner for document in good.documents], 1, good.factual))
    with pytest.raises(InputError, match="--layer: auto, and the documents to choose it by have windows of one kind"):
        train_guide({1: one_kind, 2: one_kind}, "residual", 8, {})


def test_layers_to_choose_from() -> None:
    assert candidates(None, 32) == [20, 24, 28, 32]
    assert candidates(None, 1) == [1]
    assert candidates(3, 3) == [3]
    for layer in (0, 4):
        with pytest.raises(InputError, match=f"--layer: {layer}; the model has layers 1 to 3"):
            candidates(layer, 3)
