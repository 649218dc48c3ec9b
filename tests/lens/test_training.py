"""The one protocol by which lenses are trained and tested, and what is kept beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdray.data.templates.alpaca import alpaca
from kdray.lens.align import Aligned
from kdray.lens.annotations import Annotated, sketch
from kdray.lens.classifier import KEPT_OUT, Lens, fit_lens
from kdray.lens.evaluate import auroc, auroc_stderr, numbered, rows_of
from kdray.lens.factual import lens_auroc
from kdray.lens.features import LOOKBACK, Table, make_tables
from kdray.lens.responses import align_all
from kdray.lens.training import BATCH, FOLDS, cuts, examined, keep, kept_beside, read_all, summary, train_lens
from kdray.models.load import load_folder, load_tokenizer
from kdray.spec.errors import InputError
from tests.tiny import PLACES, write_model, write_tokenizer

LAYERS, HEADS = 2, 3
Model = tuple[PreTrainedModel, PreTrainedTokenizerBase]


def table(documents: int = 12, rows: int = 30, seed: int = 0) -> Table:
    """Ratios of which the first head tells a little of what is factual, in documents of one place each."""
    dice = np.random.default_rng(seed)
    features = dice.random((documents * rows, LAYERS * HEADS)).astype(np.float32)
    factual = (features[:, 0] + dice.normal(0, 0.5, len(features)) > 0.5).astype(int)
    return Table(features, factual, [sketch(f"Document {i}") for i in range(documents) for _ in range(rows)])


@pytest.mark.slow
def test_a_fifth_of_the_documents_tests_what_the_others_fit() -> None:
    data = table()
    lens = train_lens(data, LAYERS, 8, {"family": "toy"})
    kept_out = np.array([document not in lens.documents for document in data.documents])
    inside, outside = rows_of(data, ~kept_out), rows_of(data, kept_out)
    assert len(set(outside.documents)) == 3  # of 12: the first, the sixth and the eleventh
    assert torch.equal(lens.weights, fit_lens(inside, LAYERS, 8, {}).weights)
    logits = [part.features @ lens.weights.flatten().numpy() + lens.intercept for part in (inside, outside)]
    record = dict(lens.record)
    assert record.pop("fit")["iterations"] > 0
    assert record == {
        "family": "toy",
        "protocol": "fitted on four fifths of the documents, tested on the fifth",
        "windows_fitted": 270,
        "documents_fitted": 9,
        "auroc_train": auroc(inside.factual, logits[0]),
        "windows_tested": 90,
        "documents_tested": 3,
        "auroc_test": auroc(outside.factual, logits[1]),
        "auroc_test_stderr": auroc_stderr(outside.factual, logits[1], outside.documents),
    }
    assert record["auroc_test_stderr"] > 0
    assert (
        f"AUROC {record['auroc_test']:.1f} ± {record['auroc_test_stderr']:.1f} on 90 windows of 3 documents"
        in summary(lens)
    )


def test_what_cannot_be_tested_is_said_and_what_cannot_be_fitted_refused() -> None:
    data = table()
    kept_out = numbered(data.documents, FOLDS) == 0
    lens = train_lens(replace(data, factual=np.where(kept_out, 1, data.factual)), LAYERS, 8, {})
    assert (lens.record["auroc_test"], lens.record["auroc_test_stderr"], lens.record["windows_tested"]) == (
        None,
        None,
        90,
    )
    assert summary(lens).endswith("; not tested")
    with pytest.raises(InputError, match="annotations: only factual spans; a classifier needs"):
        train_lens(replace(data, factual=np.where(kept_out, data.factual, 1)), LAYERS, 8, {})
    with pytest.raises(InputError, match="annotations: responses to one document alone; several"):
        train_lens(rows_of(data, np.arange(len(data.factual)) < 30), LAYERS, 8, {})


@pytest.mark.slow
def test_a_lens_that_is_there_is_tested_on_what_did_not_train_it() -> None:
    data, lens = table(), train_lens(table(), LAYERS, 8, {"family": "toy"})
    again = examined(lens, data)
    assert again.id == lens.id
    assert {**again.record, "protocol": ""} == {**lens.record, "protocol": ""}
    assert again.record["protocol"].startswith("trained before; tested on documents")
    nothing = examined(lens, rows_of(data, np.zeros(len(data.factual), dtype=bool)))
    assert (nothing.record["protocol"], nothing.record["auroc_test"]) == ("trained before; not tested", None)
    published = Lens(torch.zeros(LAYERS, HEADS), 0.0, record={"auroc_test": 87.2})
    assert examined(published, data).record["windows_tested"] == len(data.factual)  # its own documents are not known


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_folder(write_model(tmp_path_factory.mktemp("model"), layers=2))


def labelled(tokenizer: PreTrainedTokenizerBase) -> list[Aligned]:
    rows = [
        Annotated(
            f"{here} {there}",
            f"Ada is in {here} .",
            f"Ada is in {there} ." + " now" * i,
            ((10, 10 + len(there)),) * (here != there),
        )
        for here in PLACES
        for i, there in enumerate(PLACES)
    ]
    return align_all(rows, tokenizer, alpaca, None, None, pytest.fail)[0]


@pytest.mark.slow
def test_windows_are_in_the_order_of_their_responses_whatever_is_read_together(tiny: Model) -> None:
    model, tokenizer = tiny
    rows = labelled(tokenizer)
    order = [i for cut in cuts(rows) for i in cut]
    lengths = [len(rows[i].passage.input_ids) for i in order]
    assert sorted(order) == list(range(len(rows)))
    assert lengths == sorted(lengths, reverse=True)
    assert order != sorted(order)
    assert max(map(len, cuts(rows))) == BATCH
    read = read_all(model, rows, 3)
    alone = [make_tables(model, [row], [3])[LOOKBACK, 3] for row in rows]
    assert read.documents == [document for one in alone for document in one.documents]
    assert np.array_equal(read.factual, np.concatenate([one.factual for one in alone]))
    np.testing.assert_allclose(read.features, np.concatenate([one.features for one in alone]), rtol=1e-4)


@pytest.mark.slow
def test_what_is_kept_beside_a_lens_tests_it_again(tiny: Model, tmp_path: Path) -> None:
    model, tokenizer = tiny
    rows = labelled(tokenizer)
    made = train_lens(read_all(model, rows, 3), 2, 3, {})
    keep(made, rows, tokenizer, tmp_path / "lens")
    lens = Lens.load(tmp_path / "lens")
    beside = kept_beside(lens, tmp_path / "lens", tokenizer, None)
    assert beside == [row for row in rows if row.document not in made.documents]
    found = lens_auroc(model, beside, lens)
    assert found["n"] == lens.record["windows_tested"]
    assert found["value"] == pytest.approx(lens.record["auroc_test"])
    assert found["stderr"] == pytest.approx(
        lens.record["auroc_test_stderr"], rel=0.2
    )  # documents are drawn in another order
    longest = max(len(row.passage.input_ids) for row in beside)
    assert 0 < len(kept_beside(lens, tmp_path / "lens", tokenizer, longest - 1)) < len(beside)
    write_tokenizer(tmp_path / "other", extra="Quite another text")
    assert (
        kept_beside(lens, tmp_path / "lens", load_tokenizer(tmp_path / "other"), None) == []
    )  # its ids mean other tokens
    (tmp_path / "lens" / KEPT_OUT).write_text('[{"id": "a"}]')
    with pytest.raises(InputError, match=r"kept_out\.json: damaged \(no 'document'\); make it again"):
        kept_beside(lens, tmp_path / "lens", tokenizer, None)
    Lens(torch.ones(2, 4), 0.0).save(tmp_path / "lens")  # such as an import: what was kept for another lens goes
    assert not (tmp_path / "lens" / KEPT_OUT).exists()
