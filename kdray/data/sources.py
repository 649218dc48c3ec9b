"""Open a data source as a table on disk: hub data sets, and json, jsonl, csv and parquet files (also one in a zip)."""

from __future__ import annotations

import shutil
import uuid
import zipfile
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.exceptions import DatasetGenerationError

from kdray.spec.errors import InputError
from kdray.spec.refs import Reference
from kdray.store import Outer, io

FORMATS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


def open_source(ref: Reference, outer: Outer, field: str = "data.source") -> datasets.Dataset:
    """The rows behind `ref`, memory-mapped.

    Raises:
        InputError: an unknown format, a damaged file, or no rows.
    """
    cache = str(outer.root / "cache" / "datasets")
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what goes wrong is said below, in one line
    try:
        if ref.scheme == "hf":
            revision = outer.pinned(ref).version
            table = datasets.load_dataset(ref.name, ref.config, revision=revision, split=ref.split or "train", cache_dir=cache)
        else:
            file = table_file(ref, outer, field)
            if _is_empty(file):
                raise InputError(field, f"{ref} has no rows", "give a data set with rows")
            table = datasets.load_dataset(_format(file, field), data_files=str(file), split="train", cache_dir=cache)
    except InputError:
        raise
    except DatasetGenerationError as error:
        raise InputError(field, f"{ref} cannot be read ({_reason(error)})", f"give one table as {_formats()}") from None
    except (ValueError, OSError) as error:
        if "corresponds to no data" in str(error):  # what datasets says of a table with a header alone
            raise InputError(field, f"{ref} has no rows", "give a data set with rows") from None
        raise InputError(field, f"{ref} cannot be read ({_reason(error)})", "check the id, config, split and network") from None
    assert isinstance(table, datasets.Dataset)
    if not len(table):
        raise InputError(field, f"{ref} has no rows", "give a data set with rows")
    return table


def table_file(ref: Reference, outer: Outer, field: str) -> Path:
    """The file with the table that `ref` names, taken out of its zip if it lies in one.

    Raises:
        InputError: there is none, or several in one zip.
    """
    return _unzipped(outer.local_file(ref, field), outer, field)


def _is_empty(file: Path) -> bool:
    """Whether a file that datasets cannot read has no rows (datasets itself says so of JSON and CSV)."""
    if not file.stat().st_size:
        return True
    try:
        return file.suffix == ".parquet" and not pq.read_metadata(file).num_rows
    except pa.ArrowInvalid:
        return False  # damaged: datasets says in which way


def _format(file: Path, field: str) -> str:
    if file.suffix not in FORMATS:
        raise InputError(field, f"'{file.name}' has no known format", f"known: {_formats()}, or one of them in a .zip")
    return FORMATS[file.suffix]


def _unzipped(file: Path, outer: Outer, field: str) -> Path:
    """The one table inside a zip, extracted into the cache under the zip's hash; other files are returned as they are."""
    if file.suffix != ".zip":
        return file
    with zipfile.ZipFile(file) as archive:
        members = [name for name in archive.namelist() if Path(name).suffix in FORMATS]
        if len(members) != 1:
            raise InputError(field, f"{file.name} holds {len(members)} tables", f"a zip must hold one of {_formats()}")
        identity = outer.identify(Reference("file", str(file)), field)
        assert identity is not None
        target = outer.root / "cache" / "files" / identity["sha256"][:16] / Path(members[0]).name
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = target.with_name(f"{io.TEMPORARY}{uuid.uuid4().hex}")
            try:
                with archive.open(members[0]) as table, aside.open("wb") as copy:
                    shutil.copyfileobj(table, copy)
                aside.replace(target)
            finally:
                io.delete(aside)
    return target


def _formats() -> str:
    return ", ".join(FORMATS)


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    return (str(cause).splitlines() or [type(cause).__name__])[0][:160]
