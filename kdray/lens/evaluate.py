"""How well a classifier tells factual spans from hallucinated ones: AUROC in percent, as in the thesis's Tables 4.2 to
4.10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from kdray.lens.classifier import fit, require_both
from kdray.lens.features import Table
from kdray.spec.errors import InputError

DRAWS = 200  # of the bootstrap
Ranking = Literal["largest", "most positive", "most negative"]


class Folds(NamedTuple):
    """Mean AUROC over two folds, on the documents trained on and on the others."""

    train: float
    test: float


def auroc(factual: Sequence[int] | np.ndarray, scores: Sequence[float] | np.ndarray) -> float:
    """The area under the ROC curve in percent; nan where all are factual (1), or none is (0)."""
    from sklearn.metrics import roc_auc_score

    return 100 * float(roc_auc_score(factual, scores)) if len(set(np.asarray(factual).tolist())) == 2 else float("nan")


def auroc_stderr(
    factual: Sequence[int] | np.ndarray, scores: Sequence[float] | np.ndarray, documents: Sequence[object]
) -> float:
    """The standard error of `auroc`, by bootstrap over documents, whose spans overlap; 0 where draws are of one kind
    only.
    """
    places: dict[object, list[int]] = {}
    for i, document in enumerate(documents):
        places.setdefault(document, []).append(i)
    groups, dice = [np.array(group) for group in places.values()], np.random.default_rng(0)
    marked, scored = np.asarray(factual), np.asarray(scores)
    drawn = (
        np.concatenate([groups[i] for i in dice.integers(len(groups), size=len(groups))])
        for _ in range(DRAWS if groups else 0)
    )
    found = np.array([auroc(marked[spans], scored[spans]) for spans in drawn])
    known = found[~np.isnan(found)]
    return float(known.std(ddof=1)) if len(known) > 1 else 0.0


def numbered(documents: Sequence[object], folds: int) -> np.ndarray:
    """[n] the fold, 0 to `folds` - 1, of each row: that of its document; folds have the same number of documents, or
    one less.
    """
    order = {document: i for i, document in enumerate(sorted(set(documents), key=repr))}
    return np.array([order[document] % folds for document in documents])


def two_folds(table: Table) -> Folds:
    """Train on each half of the documents, test on the other.

    Raises:
        InputError: a half has spans of one kind only.
    """
    half, scores = numbered(table.documents, 2), []
    for fold in (0, 1):
        inside, outside = rows_of(table, half == fold), rows_of(table, half != fold)
        try:
            require_both(outside)
            model = fit(inside)
        except InputError as error:
            raise InputError("annotations", f"in one half of the documents, {error.found}", error.allowed) from None
        scores.append([auroc(part.factual, model.decision_function(part.features)) for part in (inside, outside)])
    return Folds(*np.mean(scores, axis=0).tolist())


def transfer(source: Table, target: Table) -> float:
    """Train on all of one set of annotations, test on another."""
    return auroc(target.factual, fit(source).decision_function(target.features))


def chosen_heads(source: Table, k: int, choice: Ranking) -> np.ndarray:
    """The k features that a classifier on all of them weighs most, in magnitude or to one side."""
    weights = np.asarray(fit(source).coef_)[0]
    order = {"largest": -np.abs(weights), "most positive": -weights, "most negative": weights}[choice]
    return np.argsort(order, kind="stable")[:k]


def on_features(table: Table, chosen: np.ndarray | slice) -> Table:
    """The table with some of its features."""
    return Table(table.features[:, chosen], table.factual, table.documents)


def by_heads(source: Table, target: Table, ks: Sequence[int] = (10, 50, 100)) -> Mapping[tuple[Ranking, int], float]:
    """Transfer of classifiers trained anew on the top k heads (Table 4.9)."""
    choices: tuple[Ranking, ...] = ("largest", "most positive", "most negative")
    scores = {}
    for choice in choices:
        for k in ks:
            heads = chosen_heads(source, k, choice)
            scores[choice, k] = transfer(on_features(source, heads), on_features(target, heads))
    return scores


def by_layers(source: Table, target: Table, layers: int, groups: int = 8) -> Mapping[tuple[int, int], float]:
    """Transfer of classifiers trained on successive layers only (Table 4.10), by (first, last) layer counted from 1."""
    heads = source.features.shape[1] // layers
    scores = {}
    for group in np.array_split(np.arange(layers), min(groups, layers)):
        part = slice(group[0] * heads, (group[-1] + 1) * heads)
        scores[int(group[0]) + 1, int(group[-1]) + 1] = transfer(on_features(source, part), on_features(target, part))
    return scores


def rows_of(table: Table, chosen: np.ndarray) -> Table:
    """The table with some of its rows."""
    documents = [document for document, take in zip(table.documents, chosen, strict=True) if take]
    return Table(table.features[chosen], table.factual[chosen], documents)
