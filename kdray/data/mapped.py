"""A source's rows as Arrow files, which workers map and read by number."""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdray.data.sources import open_source
from kdray.spec.columns import Column
from kdray.spec.refs import Reference
from kdray.store import Outer, fingerprint, io

if TYPE_CHECKING:
    from datasets import Dataset


def open_rows(
    ref: Reference, outer: Outer, columns: Sequence[Column], identity: Mapping[str, Any], field: str = "data.source"
) -> tuple[list[str], int]:
    """Columns of a source as Arrow files, and its rows.

    Converting takes a worker's memory, not the driver's.
    """
    source = open_source(ref, outer, field, columns, identity)
    files = [entry["filename"] for entry in source.cache_files]
    if "[" in (ref.split or "") or sum(len(_source((file,))) for file in files) != len(source):
        files = [str(_written(source, outer.root / "cache" / "parts" / fingerprint(outer.identify(ref))))]
    return files, len(source)


def _written(source: Dataset, folder: Path) -> Path:
    """The one Arrow file in `folder` with the rows of a sliced split, whose own files hold all rows; written once."""
    if not folder.is_dir():
        aside = folder.with_name(f"{io.TEMPORARY}{uuid.uuid4().hex}")
        try:
            source.save_to_disk(aside, num_shards=1)
            with contextlib.suppress(OSError):  # another driver was faster
                io.move(aside, folder)
        finally:
            io.delete(aside)
    return next(folder.glob("*.arrow"))


def read_rows(files: list[str], numbers: Any) -> dict[int, dict[str, Any]]:
    """Consecutive source rows by number."""
    columns = _source(tuple(files))[int(numbers[0]) : int(numbers[-1]) + 1]
    rows = zip(*columns.values(), strict=True)
    return {int(number): dict(zip(columns, row, strict=True)) for number, row in zip(numbers, rows, strict=True)}


@functools.cache
def _source(files: tuple[str, ...]) -> Any:
    import datasets

    return datasets.concatenate_datasets([datasets.Dataset.from_file(file) for file in files])
