"""Corpora without a grid: their concepts, and their rows balanced by these."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdray.cli.shared import Insecure, out, say
from kdray.spec import InputError
from kdray.spec.languages import require_identified

if TYPE_CHECKING:
    from kdray.cli.progress import Terminal
    from kdray.spec.refs import Reference
    from kdray.store import Outer

Folder = Annotated[Path, typer.Option(metavar="FOLDER", help="where it is written; every node must see it")]
Column = Annotated[str, typer.Option("--text", metavar="COLUMN", help="the column of texts")]
Languages = Annotated[
    str, typer.Option(help="ISO 639-1 codes, among which each text's is looked for: 'en' for all of them, or 'en, de'")
]
Least = Annotated[int, typer.Option(min=1, help="words and pairs that occur as often and more are concepts")]
Pairs = Annotated[int, typer.Option(min=0, help="at most so many pairs of words, the best by their tempered PMI")]
METADATA, REQUEST, SUMMARY = "metadata.jsonl", "request.json", "summary.json"


def metadata(
    source: Annotated[
        str | None, typer.Argument(metavar="[SOURCE]", help="a corpus: file:wiki.jsonl, or hf:org/name")
    ] = None,
    to: Folder = Path("metadata"),
    text: Column = "text",
    languages: Languages = "en",
    least: Least = 100,
    pairs: Pairs = 100_000,
    wordnet: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="with WordNet's index.noun and so on: its lemmas, of English")
    ] = None,
    titles: Annotated[
        Path | None, typer.Option(metavar="FILE", help="titles of pages in the first language, one a line")
    ] = None,
    insecure_cluster: Insecure = False,
) -> None:
    """List concepts: the words of a corpus and their best pairs, WordNet's lemmas, titles of pages.

    Writes FOLDER/metadata.jsonl, for `data.curate.metadata` of a grid and for `kdray curate` (docs/curate.md).
    """
    from kdray.curate.metadata import titles_in, wordnet_lemmas, write_entries

    if not (source or wordnet or titles):
        raise InputError("SOURCE", "missing", "give a corpus, --wordnet or --titles")
    codes, file = _codes(languages), to / METADATA
    if file.exists():
        raise InputError("--to", f"{file} is there already", "give another folder")
    ref = _table(source, "SOURCE", text) if source else None
    entries = [(lemma, "en", "WordNet") for lemma in (wordnet_lemmas(wordnet) if wordnet else ())]
    entries += [(title, codes[0], "titles") for title in (titles_in(titles) if titles else ())]
    if ref:
        with _session(to, codes, insecure_cluster) as (outer, terminal):
            from kdray.orchestration.concepts import open_texts, words_in

            texts = open_texts(ref, outer, text, outer.resolve(ref, "SOURCE"))
            entries += words_in(texts, codes, least, pairs, terminal)
    to.mkdir(parents=True, exist_ok=True)
    counts = write_entries(file, entries)
    told = ", ".join(f"{count} from {what}" for what, count in counts.items())
    say(f"{file}: {sum(counts.values())} concepts: {told}")


def curate(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="the rows: file:captions.parquet, or hf:org/name")],
    to: Folder = Path("curated"),
    text: Column = "text",
    concepts: Annotated[
        str | None,
        typer.Option("--metadata", metavar="REF", help="of `kdray metadata`; by default the rows' own words and pairs"),
    ] = None,
    languages: Languages = "en",
    tail: Annotated[
        float, typer.Option(min=0.0001, max=0.9999, help="the share of all matches that rare concepts are to have")
    ] = 0.06,
    threshold: Annotated[
        int | None, typer.Option(min=1, help="instead: matches from which one of the first language is thinned out")
    ] = None,
    least: Least = 5,
    pairs: Pairs = 10_000,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="of the draws")] = 0,
    insecure_cluster: Insecure = False,
) -> None:
    """Balance the rows of a corpus by concept, as MetaCLIP 2 does with captions. The same command goes on after any
    interruption.

    Writes into FOLDER every row's matches, chance and whether it is kept (part-*.parquet), each concept's count
    (concepts.parquet, drawn in concepts.svg and .png) and summary.json. In a grid: `data.curate` (docs/curate.md).
    """
    from kdray.artifacts.curated import read_concepts
    from kdray.report.concepts import draw_concepts
    from kdray.store import fingerprint, io

    codes, ref = _codes(languages), _table(source, "SOURCE", text)
    given = _table(concepts, "--metadata", "entry", "language") if concepts else None
    with _session(to, codes, insecure_cluster) as (outer, terminal), _alone(to):
        from kdray.orchestration import curating
        from kdray.orchestration.concepts import balanced, open_texts, own_entries, read_entries

        asked = {"source": outer.resolve(ref, "SOURCE"), "text": text, "languages": list(codes), "seed": seed}
        asked |= {"threshold": threshold} if threshold is not None else {"tail": tail}
        asked |= {"metadata": outer.resolve(given, "--metadata")} if given else {"least": least, "pairs": pairs}
        io.put_json_if_absent(to / REQUEST, {"id": fingerprint(asked)})
        if (io.read_json(to / REQUEST) or {}).get("id") != fingerprint(asked):
            raise InputError("--to", f"{to} holds another curation", "give another folder")
        texts = open_texts(ref, outer, text, asked["source"])
        if given:
            entries = read_entries(given, outer, codes, asked["metadata"])
        else:
            entries = own_entries(texts, codes, least, pairs, terminal)
        made = balanced(texts, entries, curating.Balance(codes, threshold, tail, seed), to, terminal)
        draw_concepts(to, read_concepts(to))
        io.put_json(to / SUMMARY, asdict(made))
    say(f"{to}: {curating.told(made, entries)}")


@contextlib.contextmanager
def _alone(to: Path) -> Iterator[None]:
    """Nobody else curates into the folder meanwhile. One who is dead is found so by the end of a short wait.

    Raises:
        InputError: somebody does.
    """
    from kdray.store.locks import BEAT, STALE_AFTER, Locks

    folder = to.resolve() / "cache" / "curate"
    folder.mkdir(parents=True, exist_ok=True)
    with Locks() as locks:
        until = time.monotonic() + STALE_AFTER + 2 * BEAT
        while not locks.try_acquire(folder):
            if time.monotonic() > until:
                raise InputError("--to", f"{locks.holder(folder)} curates into {to}", "wait, or give another folder")
            time.sleep(BEAT)
        yield


def _codes(languages: str) -> tuple[str, ...]:
    """The codes of languages, without blanks.

    Raises:
        InputError: there is none, or of several one is unknown.
    """
    codes = tuple(dict.fromkeys(code for part in languages.split(",") if (code := part.strip())))
    if not codes:
        raise InputError("--languages", repr(languages), "name one: 'en'")
    require_identified(codes, "--languages")
    return codes


def _table(text: str, field: str, *columns: str) -> Reference:
    """A table, which has such columns as far as can be seen before it is read."""
    from kdray.data.look import look_into
    from kdray.spec.columns import Column
    from kdray.spec.refs import parse_reference

    ref = parse_reference(text, field)
    look_into(ref, field, tuple(Column((name,)) for name in columns))
    return ref


@contextlib.contextmanager
def _session(to: Path, languages: tuple[str, ...], insecure: bool) -> Iterator[tuple[Outer, Terminal]]:
    """Ray, what comes from outside with its cache in `to`, and a terminal to tell."""
    from kdray.check.machine import curating_needs, require
    from kdray.cli.progress import Terminal
    from kdray.cli.running import not_started_is_one_line
    from kdray.curate.languages import language_of
    from kdray.orchestration.session import ray_session
    from kdray.spec.sections.running import Runtime
    from kdray.store import Outer

    folder, needs = to.resolve(), curating_needs("--languages", several=len(languages) > 1)
    if folder.exists() and not folder.is_dir():
        raise InputError("--to", f"{to} is a file", "give a folder")
    require(needs, offline=False)
    language_of("", languages)  # one that is not known is told before anything starts
    runtime = Runtime.model_validate({"store": str(folder), "device": "cpu"})
    with (
        not_started_is_one_line(),
        Terminal(out) as terminal,
        ray_session(runtime, needs, insecure=insecure),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        yield Outer(folder), terminal
