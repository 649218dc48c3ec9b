"""Rows that are never trained on, and are learned all the same: copies of them lie on the other side of the split."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b

import numpy as np

from kdray.artifacts.rows import Rows


def repeated(rows: Rows) -> int:
    """How many rows of those held out or for tests have the very tokens of a row to train on. Memory holds 16 bytes of
    each of them.
    """
    apart = np.zeros(len(rows), dtype=bool)
    apart[np.concatenate([rows.heldout, rows.test])] = True
    digests = Counter(digest for digest, held in zip(_digests(rows), apart, strict=True) if held)
    found = {digest for digest, held in zip(_digests(rows), apart, strict=True) if not held and digest in digests}
    return sum(digests[digest] for digest in found)


def _digests(rows: Rows) -> Iterator[bytes]:
    """Of the tokens of every row, in their order."""
    for batch in rows.table.select(["input_ids"]).to_batches():
        column = batch.column("input_ids")
        ids, ends = column.flatten().to_numpy(), column.offsets.to_numpy() - column.offsets[0].as_py()
        for begin, end in itertools.pairwise(ends):
            yield blake2b(ids[begin:end].tobytes(), digest_size=16).digest()
