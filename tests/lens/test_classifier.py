"""Lenses: kept, imported, evaluated by document, moved to another model."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from sklearn.linear_model import LinearRegression, LogisticRegression

from kdray.artifacts.lens import RECORD, WEIGHTS
from kdray.lens import classifier
from kdray.lens.annotations import Documents, sketch
from kdray.lens.classifier import Lens, fit, fit_lens, steepness
from kdray.lens.evaluate import auroc_stderr, by_heads, by_layers, chosen_heads, numbered, transfer, two_folds
from kdray.lens.features import Table
from kdray.lens.pickles import import_pickle
from kdray.lens.transfer import behind_map, kept_out, map_heads, mapped
from kdray.spec.errors import InputError

LAYERS, HEADS = 2, 3
TRUE_WEIGHTS = np.array([4.0, 0.0, 0.0, -3.0, 0.0, 0.0])


def table(seed: int = 0, documents: int = 40, rows: int = 5) -> Table:
    """Ratios whose first and fourth head tell what is factual, the others nothing."""
    dice = np.random.default_rng(seed)
    features = dice.random((documents * rows, LAYERS * HEADS))
    labels = (features @ TRUE_WEIGHTS + dice.normal(0, 0.3, len(features)) > 0.5).astype(int)
    return Table(features, labels, [sketch(f"Document {seed} {i}") for i in range(documents) for _ in range(rows)])


def test_a_lens_is_kept_whole(tmp_path: Path) -> None:
    data = table()
    lens = fit_lens(data, LAYERS, 4, {"family": "toy"})
    reference = LogisticRegression(tol=1e-12, max_iter=100_000).fit(data.features, data.factual)
    got = lens.probability(torch.from_numpy(data.features).view(-1, LAYERS, HEADS))
    np.testing.assert_allclose(got.numpy(), reference.predict_proba(data.features)[:, 1], rtol=1e-6)
    lens.save(tmp_path)
    again = Lens.load(tmp_path)
    assert again.id == lens.id
    assert (again.window, again.record["family"]) == (4, "toy")
    assert "document 0 7" in again.documents
    torch.testing.assert_close(again.weights, lens.weights)
    changes: list[dict[str, Any]] = [
        {"window": 8},
        {"threshold": 0.6},
        {"intercept": 0.0},
        {"documents": Documents([])},
    ]
    assert len({lens.id, *(replace(lens, **change).id for change in changes)}) == 5
    assert replace(lens, record={}).id == lens.id
    with pytest.raises(InputError, match="a lens for 2 layers x 3 heads; the model has 3 x 2"):
        lens.logit(torch.zeros(3, 2))
    with pytest.raises(InputError, match="no lens in"):
        Lens.load(tmp_path / "nowhere")


def correlated(seed: int = 0, rows: int = 1000, heads: int = 120) -> Table:
    """Ratios as a model's are: in float32, heads that go together, and more that they have in common than what tells
    them apart.
    """
    dice = np.random.default_rng(seed)
    common = dice.normal(size=(rows, 6)) @ dice.normal(size=(6, heads))
    ratios = 1 / (1 + np.exp(-(common + 0.3 * dice.normal(size=(rows, heads)) - 1.5)))
    labels = (common[:, 0] + dice.normal(0, 2.0, rows) > 0).astype(int)
    return Table(ratios.astype(np.float32), labels, [sketch(f"Document {i // 20}") for i in range(rows)])


def test_a_lens_does_not_depend_on_the_rounding_of_features() -> None:
    data, dice = correlated(), np.random.default_rng(1)
    ratios = torch.from_numpy(data.features).view(-1, 12, 10)
    lens = fit_lens(data, 12, 8, {})
    for relative in (1e-7, 1e-6):
        rounded = (data.features * (1 + relative * dice.standard_normal(data.features.shape))).astype(np.float32)
        assert not np.array_equal(rounded, data.features)
        other = fit_lens(replace(data, features=rounded), 12, 8, {})
        moved = (lens.probability(ratios.double()) - other.probability(ratios.double())).abs().max().item()
        assert moved < 30 * relative
        assert torch.linalg.norm(other.weights - lens.weights) < 30 * relative * torch.linalg.norm(lens.weights)


def test_a_fit_reaches_the_minimum_and_says_so() -> None:
    data = correlated()
    lens = fit_lens(data, 12, 8, {"family": "toy"})
    assert lens.record["family"] == "toy"
    assert 0 < lens.record["fit"]["iterations"] < 1000
    assert lens.record["fit"]["steepness"] < 1e-9

    def objective(weights: np.ndarray, intercept: float) -> float:
        logits = data.features.astype(np.float64) @ weights + intercept
        return float((np.logaddexp(0, logits) - data.factual * logits).sum() + weights @ weights / 2)

    reached, dice = objective(lens.weights.flatten().numpy(), lens.intercept), np.random.default_rng(2)
    stopped = LogisticRegression(max_iter=1000).fit(data.features, data.factual)
    assert reached < objective(stopped.coef_[0].astype(np.float64), float(stopped.intercept_[0]))
    for _ in range(5):
        aside = 1e-3 * dice.standard_normal(lens.weights.numel())
        assert reached < objective(lens.weights.flatten().numpy() + aside, lens.intercept)
    assert steepness(stopped, data) > 1e-6  # it is told what has not arrived


def test_a_fit_that_does_not_arrive_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "TOLERANCE", 1e-30)
    with pytest.warns(Warning, match=r"(?i)line search|converge"):
        fit(correlated())


TENSORS = {"weights": torch.ones(2, 3), "intercept": torch.ones(1)}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk" * 10,
        save(TENSORS)[:-3],
        save({"weights": torch.ones(2, 3)}),
        save({"intercept": torch.ones(1)}),
        save(TENSORS | {"intercept": torch.ones(2)}),
        save(TENSORS | {"weights": torch.ones(6)}),
        save(TENSORS | {"scale": torch.ones(2, 3)}),
        save(TENSORS | {"weights": torch.full((2, 3), torch.nan)}),
    ],
)
def test_damaged_weights(tmp_path: Path, content: bytes) -> None:
    Lens(torch.ones(2, 3), 1.0).save(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(InputError, match=r"^lens: .* is damaged \(.+\); train or import it again$"):
        Lens.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        *("[]", "{}", "{"),
        *("rule", "documents", "record", "threshold", "window"),
        *({"window": value} for value in ("x", -3, 1.5)),
        *({"threshold": value} for value in ("x", None, 10**400)),
        *({"record": value} for value in (None, [], {"auroc_test": "x"})),
        *({"documents": value} for value in (5, [5], [[5]])),
        {"rule": None},
    ],
)
def test_damaged_records(tmp_path: Path, change: str | dict[str, Any]) -> None:
    Lens(torch.ones(2, 3), 1.0).save(tmp_path)
    path = tmp_path / RECORD
    kept = json.loads(path.read_text())
    if isinstance(change, dict):
        path.write_text(json.dumps(kept | change))
    else:
        path.write_text(
            json.dumps({name: value for name, value in kept.items() if name != change}) if change in kept else change
        )
    with pytest.raises(InputError, match=r"^lens: .* is damaged \(.+\); train or import it again$"):
        Lens.load(tmp_path)


def test_folds_are_of_documents() -> None:
    data = table()
    half = numbered(data.documents, 2)
    by_document = {
        document: {int(h) for d, h in zip(data.documents, half, strict=True) if d == document}
        for document in data.documents
    }
    assert all(len(found) == 1 for found in by_document.values())
    assert sum(half) == len(half) / 2
    # What cannot be learned but by heart, a label of each document, is not found again in the other half.
    dice = np.random.default_rng(1)
    codes = np.repeat(np.eye(40), 5, axis=0)
    labels = np.repeat(dice.permutation([0, 1] * 20), 5)
    folds = two_folds(Table(codes, labels, data.documents))
    assert folds.train > 99
    assert folds.test < 60
    assert two_folds(data).test > 90


def test_one_label_makes_no_classifier() -> None:
    data = table()
    with pytest.raises(InputError, match="annotations: no factual span"):
        transfer(Table(data.features, 0 * data.factual, data.documents), data)
    with pytest.raises(InputError, match="in one half of the documents, only factual spans"):
        two_folds(Table(data.features, np.maximum(data.factual, numbered(data.documents, 2)), data.documents))


def test_heads_and_layers() -> None:
    source, target = table(0), table(1)
    assert set(chosen_heads(source, 2, "largest")) == {0, 3}
    assert chosen_heads(source, 1, "most positive") == [0]
    assert chosen_heads(source, 1, "most negative") == [3]
    scores = by_heads(source, target, ks=(2,))
    assert scores["largest", 2] > max(scores["most positive", 2], scores["most negative", 2])
    by_layer = by_layers(source, target, LAYERS)
    assert set(by_layer) == {(1, 1), (2, 2)}
    assert all(60 < value < transfer(source, target) for value in by_layer.values())


def test_a_lens_behind_a_map_of_heads_scores_what_the_map_gives() -> None:
    """Another model of 1 layer and 8 heads whose ratios are a linear mix of the lens's."""
    torch.manual_seed(0)
    mix = torch.rand(LAYERS * HEADS, 8)
    own = torch.rand(30, LAYERS, HEADS)
    other = (own.flatten(1) @ mix).view(-1, 1, 8)
    lens = fit_lens(table(), LAYERS, 8, {})
    heads = map_heads(other, own)
    moved = behind_map(lens, heads, layers=1)
    through = torch.from_numpy(LinearRegression.predict(heads, other.flatten(1).numpy())).view(-1, LAYERS, HEADS)
    torch.testing.assert_close(moved.logit(other), lens.logit(through).float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moved.logit(other), lens.logit(own), rtol=1e-2, atol=1e-2)
    with pytest.raises(InputError, match="29 responses by one model, 30 by the other"):
        map_heads(other[1:], own)
    with pytest.raises(InputError, match="lens: 1 responses; a map of heads needs several"):
        map_heads(other[:1], own[:1])


def test_a_mapped_lens_is_tested_on_what_fitted_neither_it_nor_the_map() -> None:
    lens, data = fit_lens(table(documents=8), LAYERS, 8, {}), [sketch(f"Document 0 {i}") for i in range(10)]
    assert kept_out(lens, data) == set(data[8:])  # of ten the two that did not train it
    strange = [sketch(f"Text {i}") for i in range(10)]
    assert len(kept_out(lens, strange)) == 2
    assert len(kept_out(lens, data[:8] + strange)) == 4
    with pytest.raises(InputError, match="annotations: documents that all trained the lens; a map"):
        kept_out(lens, data[:8])
    with pytest.raises(InputError, match="annotations: 1 documents; a map"):
        kept_out(lens, strange[:1])
    ratios = {str(i): torch.rand(LAYERS, HEADS) for i in range(6)}
    other = {id: value[:, :2] for id, value in reversed(ratios.items())}  # by id, in whatever order
    moved = mapped(lens, other, ratios, {str(i): data[i + 4] for i in range(6)}, {"model": "toy"})
    assert [moved.record[f"map{name}"] for name in ("_responses", "_documents", "_documents_trained", "")] == [
        6,
        6,
        4,
        {"model": "toy"},
    ]
    assert moved.record["mapped_from"] == lens.id
    assert all(document in moved.documents for document in data)
    assert moved.weights.shape == (LAYERS, 2)
    same = mapped(lens, ratios, ratios, {str(i): data[i] for i in range(6)}, {})
    torch.testing.assert_close(same.logit(ratios["3"]), lens.logit(ratios["3"]), rtol=1e-4, atol=1e-4)


@pytest.mark.realdata
def test_published_classifiers_equal_the_arrays_beside_them(data_dir: Path) -> None:
    files = sorted((data_dir / "lookback_lens").glob("*.pkl"))
    assert len(files) == 4
    for file in files:
        lens, arrays = import_pickle(file), np.load(file.with_suffix(".npz"))
        assert np.array_equal(lens.weights.numpy(), arrays["coef"].reshape(32, 32))
        assert lens.intercept == arrays["intercept"]
        assert lens.record["best_threshold"] == arrays["threshold"]
        assert lens.window == (8 if "window_8" in file.name else 0)
    by_name = {file.stem.removeprefix("classifier_anno-"): import_pickle(file).record["auroc_test"] for file in files}
    assert by_name == {  # rounded from what the authors' README prints
        "cnndm-7b_predefined_span": 87.2,
        "cnndm-7b_sliding_window_8": 84.7,
        "nq-7b_predefined_span": 91.4,
        "nq-7b_sliding_window_8": 86.6,
    }


class Command:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("it-ran"),)


def published(**changes: Any) -> dict[str, Any]:
    model = LogisticRegression()
    model.__dict__ |= {"coef_": np.zeros((1, 1024)), "intercept_": np.zeros(1), "classes_": np.array([0, 1])} | changes
    return {"clf": model}


@pytest.mark.parametrize(
    "content",
    [
        b"no pickle",
        b"",
        pickle.dumps({"clf": 1}),
        pickle.dumps([1, 2]),
        pickle.dumps({"clf": Command()}),
        pickle.dumps(published(coef_=np.zeros((1, 4)))),
        pickle.dumps(published(classes_=np.array([1, 0]))),
        pickle.dumps(published(coef_=np.full((1, 1024), np.nan))),
        pickle.dumps(published(coef_=np.array([[object()] * 1024]))),
        pickle.dumps(published(extra=Command())),
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0btouch itran\x85R.",
        b"cbuiltins\neval\n(S'1'\ntR.",
    ],
)
def test_any_other_pickle_is_refused_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "classifier_x_sliding_window_8.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"window_8\.pkl is refused: \w+, .*; a published Lookback Lens classifier"):
        import_pickle(path)
    assert [path.name for path in tmp_path.iterdir()] == [path.name]


def test_a_pickle_whose_name_does_not_tell_its_window_is_refused(tmp_path: Path) -> None:
    (tmp_path / "renamed.pkl").write_bytes(b"")
    with pytest.raises(InputError, match=r"renamed\.pkl is refused: its name does not tell the window"):
        import_pickle(tmp_path / "renamed.pkl")


@pytest.mark.slow
def test_the_error_of_an_auroc_is_delongs_where_spans_are_independent_and_no_smaller_for_copies() -> None:
    dice, n = np.random.default_rng(3), 300
    labels = (dice.random(n) < 0.4).astype(int)
    scores = dice.normal(size=n) + labels
    wins = (scores[labels == 1][:, None] > scores[labels == 0]).astype(float)
    delong = 100 * np.sqrt(sum(wins.mean(axis).var(ddof=1) / wins.shape[1 - axis] for axis in (0, 1)))
    alone = auroc_stderr(labels.tolist(), scores.tolist(), range(n))
    assert alone == pytest.approx(delong, rel=0.15)
    copies = [np.repeat(values, 4).tolist() for values in (labels, scores, np.arange(n))]
    assert auroc_stderr(*copies) == pytest.approx(alone)
    assert auroc_stderr([], [], []) == 0.0
