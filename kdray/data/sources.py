"""Open a data source as a table on disk: hub data sets, and json, jsonl, csv and parquet files (also one in a zip)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
from datasets.exceptions import DatasetGenerationError

from kdray.data.tables import arrow_file
from kdray.spec.columns import Column
from kdray.spec.errors import InputError
from kdray.spec.refs import Reference
from kdray.store import Outer
from kdray.store.outer import script_refused


def open_source(
    ref: Reference,
    outer: Outer,
    field: str = "data.source",
    columns: Sequence[Column] = (),
    identity: Mapping[str, Any] | None = None,
) -> datasets.Dataset:
    """The rows behind `ref`, memory-mapped.

    Of a file only `columns` are read; all, if none are given. `identity` is its content when the run began.

    Raises:
        InputError: an unknown format, a damaged file, no rows, or another content.
    """
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what goes wrong is said below, in one line
    if ref.scheme == "hf":
        return _of_hub(ref, outer, field)
    path = arrow_file(ref, outer, columns, identity, field)
    try:
        return datasets.Dataset.from_file(str(path))
    except ValueError as error:
        raise InputError(
            field, f"{ref} has columns of a kind that cannot be read ({_reason(error)})", "leave them out"
        ) from None


def _of_hub(ref: Reference, outer: Outer, field: str) -> datasets.Dataset:
    cache, revision = str(outer.root / "cache" / "datasets"), outer.pinned(ref).version
    try:
        table = datasets.load_dataset(
            ref.name, ref.config, revision=revision, split=ref.split or "train", cache_dir=cache
        )
    except DatasetGenerationError as error:
        raise InputError(
            field, f"{ref} cannot be read ({_reason(error)})", "fetch it, and give one table as file:PATH"
        ) from None
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise script_refused(ref, field) from None
    except (ValueError, OSError) as error:
        raise InputError(
            field, f"{ref} cannot be read ({_reason(error)})", "check the id, config, split and network"
        ) from None
    assert isinstance(table, datasets.Dataset)
    if not len(table):
        raise InputError(field, f"{ref} has no rows", "give a data set with rows")
    return table


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    return (str(cause).splitlines() or [type(cause).__name__])[0][:160]
