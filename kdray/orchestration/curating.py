"""Curation over Ray: what a corpus has of words, which entries each of its texts matches, and which rows are kept.

Three passes over slices of texts, each a streaming Ray Data pipeline. A worker holds one slice, and of each language
that it meets the automaton and the chances; the driver holds some numbers for each entry of the metadata, never a row.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import ray.data

from kdray.artifacts.curated import COUNTED, MATCHES, ROWS, read_metadata, write_concepts, write_metadata
from kdray.artifacts.parts import parts
from kdray.artifacts.tables import read_like, write_table_part
from kdray.curate.balance import draws, entry_chances, row_chances, tail_share, threshold_of
from kdray.curate.languages import language_of
from kdray.curate.matching import Matcher
from kdray.curate.words import COUNTS, Counted, Words, folded
from kdray.spec.errors import InputError
from kdray.store import io

SLICE = 4096  # texts that a task takes at once
TOGETHER = 64  # slices, whose counts a task adds up
MATCHED = "matched"  # the folder of what is matched, until all of it is counted
WORDS = pa.schema([("language", pa.string()), *COUNTS])
FOUND = pa.schema([("language", pa.string()), ("entry", pa.int32()), ("count", pa.int64())])
Numbers = dict[str, np.ndarray]  # one for each entry of the metadata, by language
Done = Callable[[int], None]  # told how many texts each slice has had


class Texts(Protocol):
    """Texts that workers read by their places, each with the number of its row."""

    def __len__(self) -> int: ...

    def read(self, begin: int, end: int) -> tuple[np.ndarray, list[str]]:
        """The numbers and the texts of the places from `begin` to `end`, which may lie behind the last one.

        Raises:
            InputError: one is no text.
        """
        ...


@dataclass(frozen=True)
class Slices:
    """Texts in slices of so many."""

    texts: Texts
    size: int = SLICE

    def __len__(self) -> int:
        return -(-len(self.texts) // self.size)

    def read(self, number: int) -> tuple[np.ndarray, list[str]]:
        return self.texts.read(number * self.size, (number + 1) * self.size)


@dataclass(frozen=True)
class Balance:
    """How much is kept of what is often matched.

    Args:
        languages: ISO 639-1 codes, among which each text's is looked for; a single one is every text's.
        threshold: from how many matches an entry of the first language is of the head.
        tail: without a threshold, the share of all matches that those of the tail are to have.
        seed: of the draws.
    """

    languages: tuple[str, ...]
    threshold: int | None
    tail: float
    seed: int


@dataclass(frozen=True)
class Curated:
    """What came out: rows in all, those that matched something, those kept, the threshold of each language, and the
    share of matches in the tail that they go by.
    """

    rows: int
    matched: int
    kept: int
    thresholds: dict[str, int]
    tail: float


def count_words(texts: Texts, languages: Sequence[str], done: Done) -> dict[str, Counted]:
    """The words of a corpus and their pairs, by language."""
    found: dict[str, Counted] = {}
    slices = Slices(texts)
    for rows, _, table in _over(len(slices), functools.partial(_words, slices, tuple(languages))):
        of = table["language"].to_numpy()
        for language in set(of):
            words = table.filter(pa.array(of == language)).select(COUNTS.names)
            found.setdefault(language, Counted()).add(words)
        done(rows)
    return found


def curate(
    texts: Texts,
    entries: Mapping[str, Sequence[str]],
    balance: Balance,
    target: Path,
    done: Done = lambda rows: None,
    size: int = SLICE,
) -> Curated:
    """Write each row's matches, chance and fate as parts in `target`, and the entries with their counts.

    Parts that an earlier call has left there are used. `done` hears of every text twice.

    Raises:
        InputError: no text matches any entry.
    """
    slices = Slices(texts, size)
    (target / MATCHED).mkdir(parents=True, exist_ok=True)
    write_metadata(target, entries)
    matches: Numbers = {language: np.zeros(len(some), np.int64) for language, some in entries.items()}
    kept_matches: Numbers = {language: np.zeros_like(counts) for language, counts in matches.items()}
    total = matched = kept = 0
    written = parts(target / MATCHED)
    for rows, some, table in _over(len(slices), functools.partial(_match, slices, balance.languages, target, written)):
        _add(table, matches)
        total, matched = total + rows, matched + some
        done(rows)
    if not matched:
        raise InputError("metadata", f"no entry is in any of {total} texts", "give metadata of what they are about")
    thresholds, tail = thresholds_of(matches, balance)
    chances = {language: entry_chances(thresholds[language], counts) for language, counts in matches.items()}
    for language, numbers in chances.items():
        np.save(target / MATCHED / f"{language}.npy", numbers, allow_pickle=False)
    ways = parts(target / MATCHED), parts(target)
    for rows, some, table in _over(len(slices), functools.partial(_keep, target, balance.seed, *ways)):
        _add(table, kept_matches)
        kept += some
        done(rows)
    columns = [
        [language for language, some in entries.items() for _ in some],
        [entry for some in entries.values() for entry in some],
        *(np.concatenate(list(numbers.values())) for numbers in (matches, chances, kept_matches)),
    ]
    write_concepts(target, pa.table(columns, schema=COUNTED))
    io.delete(target / MATCHED)
    return Curated(total, matched, kept, thresholds, tail)


def thresholds_of(matches: Numbers, balance: Balance) -> tuple[dict[str, int], float]:
    """The threshold of each language, and the share of matches in the tail that they have in common."""
    first, given = balance.languages[0], balance.threshold
    tail = balance.tail if given is None else tail_share(given, matches[first])
    found = {language: threshold_of(tail, counts) for language, counts in matches.items()}
    return (found if given is None else found | {first: given}), tail


def told(made: Curated, entries: Mapping[str, Sequence[str]]) -> str:
    """A curation in a sentence."""
    thresholds = ", ".join(f"{language} {threshold}" for language, threshold in made.thresholds.items())
    return (
        f"{made.kept} of {made.rows} rows are kept, {made.rows - made.matched} have none of"
        f" {sum(map(len, entries.values()))} entries; those with more than {thresholds} matches are thinned out, others"
        f" have {made.tail:.1%} of all matches"
    )


def _add(table: pa.Table, numbers: Numbers) -> None:
    """Add the counts in a table of `FOUND`."""
    languages, entries, counts = (column.to_numpy() for column in table.columns)
    for language in set(languages):
        of = languages == language
        np.add.at(numbers[language], entries[of], counts[of])


def _over(count: int, turn: Callable[[int], tuple[int, int, pa.Table]]) -> Iterator[tuple[int, int, pa.Table]]:
    """What tasks answer about slices by their numbers: their rows, how many of them count, and a table of counts.

    Those of `TOGETHER` slices are added up before they reach the driver.
    """
    answer_one: Any = functools.partial(_answer, turn)
    slices = ray.data.range(count, override_num_blocks=count).map_batches(answer_one, batch_size=1)
    summed: Any = slices.map_batches(_together, batch_size=TOGETHER, batch_format="pyarrow")
    answers: Iterator[Any] = iter(summed.iter_rows())
    for answer in answers:
        if answer["error"]:
            raise InputError(*json.loads(answer["error"]))
        yield answer["rows"], answer["some"], pa.ipc.open_stream(answer["table"]).read_all()


def _answer(turn: Callable[[int], tuple[int, int, pa.Table]], batch: dict[str, Any]) -> pa.Table:
    """A task's answer as one row.

    What is wrong with the input comes back as `error`: raised here, it would reach the user inside a Ray traceback.
    """
    rows, some, table, error = 0, 0, pa.table({}), ""
    try:
        rows, some, table = turn(int(batch["id"][0]))
    except InputError as wrong:
        error = json.dumps([wrong.field, wrong.found, wrong.allowed])
    return _as_row(rows, some, table, error)


def _together(answers: pa.Table) -> pa.Table:
    """Several answers as one; of errors the first."""
    if errors := [error for error in answers["error"].to_pylist() if error]:
        return _as_row(0, 0, pa.table({}), errors[0])
    counts = pa.concat_tables(pa.ipc.open_stream(table).read_all() for table in answers["table"].to_pylist())
    of = [name for name in counts.column_names if name != "count"]
    summed = counts.group_by(of).aggregate([("count", "sum")]).rename_columns([*of, "count"])
    rows, some = (int(answers[name].to_numpy().sum()) for name in ("rows", "some"))
    return _as_row(rows, some, summed, "")


def _as_row(rows: int, some: int, counts: pa.Table, error: str) -> pa.Table:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, counts.schema) as writer:
        writer.write_table(counts)
    written = pa.array([sink.getvalue().to_pybytes()], pa.large_binary())
    return pa.table({"rows": [rows], "some": [some], "table": written, "error": [error]})


def _words(slices: Slices, languages: tuple[str, ...], number: int) -> tuple[int, int, pa.Table]:
    """The words of a slice."""
    _, read = slices.read(number)
    found: dict[str, Words] = {}
    for text in read:
        found.setdefault(language_of(text, languages), Words()).add(folded(text))
    tables = {language: words.table() for language, words in found.items()}
    named = [
        table.add_column(0, WORDS.field("language"), pa.repeat(language, table.num_rows))
        for language, table in tables.items()
    ]
    return len(read), len(read), pa.concat_tables([WORDS.empty_table(), *named])


def _match(
    slices: Slices, languages: tuple[str, ...], target: Path, written: Mapping[int, Path], number: int
) -> tuple[int, int, pa.Table]:
    """Write which entries the texts of a slice match, if that is not done; returns how many match any, and counts."""
    if number in written:
        return _counted(read_like(written[number], MATCHES))
    numbers, read = slices.read(number)
    of = [language_of(text, languages) for text in read]
    entries = [_matcher(target, language)(text) for language, text in zip(of, read, strict=True)]
    table = pa.table([numbers, of, entries], schema=MATCHES)
    write_table_part(target / MATCHED, number, table)
    return _counted(table)


def _keep(
    target: Path, seed: int, matches: Mapping[int, Path], written: Mapping[int, Path], number: int
) -> tuple[int, int, pa.Table]:
    """Write which rows of a slice are kept, if that is not done; returns how many are, and counts of their matches."""
    if number in written:
        table = read_like(written[number], ROWS)
    else:
        matched = read_like(matches[number], MATCHES)
        chances = _row_chances(matched, target)
        kept = draws(matched["row"].to_numpy(), seed) < chances
        table = matched.append_column(ROWS.field("chance"), pa.array(chances)).append_column(
            ROWS.field("kept"), pa.array(kept)
        )
        write_table_part(target, number, table)
    _, _, counts = _counted(table.filter(table["kept"]))
    return table.num_rows, int(np.count_nonzero(table["kept"].to_numpy())), counts


def _row_chances(matched: pa.Table, target: Path) -> np.ndarray:
    """[n] chances of the rows of a slice."""
    of = matched["language"].to_pylist()
    each = [
        _chances(target, language)[entries]
        for language, entries in zip(of, matched["entries"].to_pylist(), strict=True)
        if entries
    ]
    lengths = [len(entries) for entries in matched["entries"].to_pylist()]
    flat = np.concatenate(each) if each else np.empty(0)
    return row_chances(flat, np.repeat(np.arange(len(lengths)), lengths), len(lengths))


def _counted(matched: pa.Table) -> tuple[int, int, pa.Table]:
    """Rows, those that match, and how many match each entry."""
    some, counts = 0, Counter[tuple[str, int]]()
    for language, entries in zip(matched["language"].to_pylist(), matched["entries"].to_pylist(), strict=True):
        counts.update((language, entry) for entry in entries)
        some += bool(entries)
    found = [(language, entry, count) for (language, entry), count in counts.items()]
    return matched.num_rows, some, pa.table(list(zip(*found, strict=True)) or [[]] * 3, schema=FOUND)


@functools.lru_cache(maxsize=64)
def _matcher(target: Path, language: str) -> Matcher:
    return Matcher(read_metadata(target, language))


@functools.lru_cache(maxsize=64)
def _chances(target: Path, language: str) -> np.ndarray:
    return np.load(target / MATCHED / f"{language}.npy", mmap_mode="r", allow_pickle=False)
