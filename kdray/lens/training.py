"""How a lens is trained and tested: one protocol, for `kdray lens train` and for a grid's step alike.

Every fifth document is kept out. The lens is fitted on the windows of the others, tested on those of the fifth, and the
responses to the fifth are kept beside it, so that every model that it measures is tested on the very same
(`lens_auroc`). Responses are read a fixed few at a time and their windows put in the order of the responses: whoever
reads them, the lens is the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdray.artifacts.lens import KEPT_OUT
from kdray.lens.align import Aligned, read_aligned, write_aligned
from kdray.lens.classifier import Lens, fit_lens
from kdray.lens.evaluate import auroc, auroc_stderr, numbered, rows_of
from kdray.lens.features import LOOKBACK, Follow, Table, make_tables, unfollowed
from kdray.spec.errors import InputError
from kdray.store import fingerprint

FOLDS, BATCH = 5, 8
FITTED = "fitted on four fifths of the documents, tested on the fifth"
GIVEN = "trained before; tested on documents that did not train it"
UNTESTED = "trained before; not tested"
NUMBERS = (  # in a lens's record
    *("protocol", "windows_fitted", "documents_fitted", "auroc_train"),
    *("windows_tested", "documents_tested", "auroc_test", "auroc_test_stderr"),
)


@dataclass(frozen=True)
class Windows:
    """[n, L * H] mean lookback ratios of windows, [n] whether each is factual (1) or hallucinated (0), [n] its
    response's number.
    """

    features: np.ndarray
    factual: np.ndarray
    rows: np.ndarray


def cuts(rows: Sequence[Aligned]) -> list[list[int]]:
    """Which responses are read together, by number: a few at a time, long ones first."""
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i].passage.input_ids), i))
    return [order[i : i + BATCH] for i in range(0, len(order), BATCH)]


def read_windows(model: PreTrainedModel, rows: Sequence[Aligned], cut: Sequence[int], window: int) -> Windows:
    """The windows of the responses of one cut."""
    # The table has no other place for the response's number; which document it is to, `joined` knows.
    chosen = [dataclasses.replace(rows[i], document=(str(i),)) for i in cut]
    table = make_tables(model, chosen, [window])[LOOKBACK, window]
    return Windows(table.features, table.factual, np.array([int(number) for (number,) in table.documents]))


def joined(parts: Sequence[Windows], rows: Sequence[Aligned], width: int) -> Table:
    """The windows of all cuts as one table of `width` features, by response, whatever cut they were in."""
    if not parts:
        return Table(np.empty((0, width)), np.empty(0), [])
    features, factual, numbers = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("features", "factual", "rows")
    )
    order = np.argsort(numbers, kind="stable")
    return Table(features[order], factual[order], [rows[i].document for i in numbers[order]])


def read_all(model: PreTrainedModel, rows: Sequence[Aligned], window: int, follow: Follow = unfollowed) -> Table:
    """The windows of all responses, read here one cut after the other."""
    config: Any = model.config
    parts = [read_windows(model, rows, cut, window) for cut in follow(cuts(rows), "reading")]
    return joined(parts, rows, config.num_hidden_layers * config.num_attention_heads)


def train_lens(table: Table, layers: int, window: int, origin: Mapping[str, Any]) -> Lens:
    """The lens of a model of `layers` layers from a table of windows, with a record: `origin`, and what the protocol
    found.

    `protocol` says it in words; `windows_fitted` and `documents_fitted` count what the lens was fitted on,
    `auroc_train` is its AUROC there in percent; `with_test` adds those of the documents kept out.

    Raises:
        InputError: the responses are to one document, or all windows of four fifths of the documents are of one kind.
    """
    inside, outside = fifths(table)
    made = fit_lens(inside, layers, window, {**origin, **fitted(inside)})
    made = dataclasses.replace(
        made, record={**made.record, "auroc_train": auroc(inside.factual, _logits(made, inside))}
    )
    return with_test(made, outside)


def fifths(table: Table) -> tuple[Table, Table]:
    """The windows that a classifier is fitted on, and those of every fifth document, which test it.

    Raises:
        InputError: there is one document alone.
    """
    if len(set(table.documents)) == 1:
        raise InputError(
            "annotations", "responses to one document alone", "several: a fifth of the documents is kept out for a test"
        )
    kept_out = numbered(table.documents, FOLDS) == 0
    return rows_of(table, ~kept_out), rows_of(table, kept_out)


def fitted(table: Table) -> dict[str, Any]:
    """What a record says of the windows that a classifier was fitted on."""
    return {"protocol": FITTED, "windows_fitted": len(table.factual), "documents_fitted": len(set(table.documents))}


def tested(table: Table, logits: np.ndarray) -> dict[str, Any]:
    """What a record says of a test on the windows of a table, by the [n] logits that a classifier gave them: see
    `with_test`.
    """
    found = auroc(table.factual, logits)
    known = not np.isnan(found)
    test = {"auroc_test": found if known else None}
    test |= {"auroc_test_stderr": auroc_stderr(table.factual, logits, table.documents) if known else None}
    return test | {"windows_tested": len(table.factual), "documents_tested": len(set(table.documents))}


def examined(lens: Lens, table: Table) -> Lens:
    """A lens that is there already, tested on the windows of a table whose documents did not train it; the table may be
    empty.
    """
    outside = np.array([document not in lens.documents for document in table.documents], dtype=bool)
    record = {**lens.record, "protocol": GIVEN if table.documents else UNTESTED}
    return with_test(dataclasses.replace(lens, record=record), rows_of(table, outside))


def with_test(lens: Lens, table: Table) -> Lens:
    """The lens with a test on windows of documents that did not train it in its record.

    `auroc_test` in percent and its standard error, `auroc_test_stderr`, both None where the windows are of one kind or
    there are none, and their numbers: `windows_tested`, `documents_tested`.
    """
    return dataclasses.replace(lens, record={**lens.record, **tested(table, _logits(lens, table))})


def numbers_of(lens: Lens) -> dict[str, Any]:
    """What the protocol found, out of a lens's record."""
    return {name: lens.record[name] for name in NUMBERS if name in lens.record}


def summary(lens: Lens) -> str:
    """The same in words."""
    return in_words(lens.record, f"trained before, {lens.id}")


def in_words(numbers: Mapping[str, Any], otherwise: str = "") -> str:
    """What the protocol found of a classifier; `otherwise` says where one is from that was not fitted by it."""
    trained = otherwise
    if numbers["protocol"] == FITTED:
        windows = f"{numbers['windows_fitted']} windows of {numbers['documents_fitted']} documents"
        trained = f"fitted on {windows} (AUROC {numbers['auroc_train']:.1f} there)"
    if numbers["auroc_test"] is None:
        return f"{trained}; not tested"
    found = f"AUROC {numbers['auroc_test']:.1f} ± {numbers['auroc_test_stderr']:.1f}"
    return (
        f"{trained}; {found} on {numbers['windows_tested']} windows of {numbers['documents_tested']} documents that did"
        " not train it"
    )


def keep(lens: Lens, rows: Sequence[Aligned], tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save a lens, and beside it the responses to documents that did not train it, with the vocabulary of their token
    ids.
    """
    dataclasses.replace(lens, record={**lens.record, "vocabulary": _vocabulary(tokenizer)}).save(folder)
    write_aligned([row for row in rows if row.document not in lens.documents], folder / KEPT_OUT)


def kept_beside(lens: Lens, folder: Path, tokenizer: PreTrainedTokenizerBase, reads: int | None) -> list[Aligned]:
    """The responses that `keep` left beside a lens, those of at most `reads` tokens; none where they are of another
    vocabulary.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / KEPT_OUT
    if lens.record.get("vocabulary") != _vocabulary(tokenizer) or not path.is_file():
        return []
    return [row for row in read_aligned(path) if reads is None or len(row.passage.input_ids) <= reads]


def _logits(lens: Lens, table: Table) -> np.ndarray:
    return table.features @ lens.weights.flatten().numpy() + lens.intercept


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> str:
    """What token ids mean: the same for tokenizers that give every token the same id."""
    return fingerprint(tokenizer.get_vocab())
