"""Balancing a corpus by concept: rows a second beside a plain loop in one process, and the memory that it takes.

    python -m benchmarks.curate TEXTS.jsonl [--text instruction] [--rows 100000] [--concepts FILE.jsonl] [--json]

The texts are taken over and over until there are so many rows. The plain loop does the same with one automaton and one
pass, and holds every row's matches in memory, as algorithm 2 of MetaCLIP 2 is printed. Memory is the driver's peak
beyond what it had before.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from kdray.curate.balance import draws, entry_chances, row_chances, threshold_of
from kdray.curate.matching import Matcher
from kdray.curate.words import Counted, Words, all_entries, folded
from kdray.orchestration import curating
from kdray.orchestration.session import ray_session
from kdray.spec.sections.running import Runtime

TAIL = 0.06


class Repeated:
    """Some texts over and over, up to so many."""

    def __init__(self, texts: list[str], count: int) -> None:
        self.texts, self.count = texts, count

    def __len__(self) -> int:
        return self.count

    def read(self, begin: int, end: int) -> tuple[np.ndarray, list[str]]:
        numbers = np.arange(begin, min(end, self.count))
        return numbers, [self.texts[number % len(self.texts)] for number in numbers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path, help="a jsonl")
    parser.add_argument("--text", default="instruction", help="its column of texts")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--concepts", type=Path, help="of `kdray metadata`; by default the texts' own words")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    texts = [json.loads(line)[given.text] for line in given.texts.read_text().splitlines()]
    entries = _entries(given.concepts, texts)
    corpus = Repeated(texts, given.rows)
    plain, kept = _plain(corpus, entries)
    figures = {"rows": given.rows, "concepts": len(entries), "plain_s": plain}
    with (
        tempfile.TemporaryDirectory() as folder,
        ray_session(Runtime.model_validate({"store": folder, "device": "cpu"}), []),
    ):
        began, peak = time.perf_counter(), _Peak()
        with peak:
            made = curating.curate(corpus, {"en": entries}, curating.Balance(("en",), None, TAIL, 0), Path(folder))
        figures |= {"ray_s": time.perf_counter() - began, "driver_mib": peak.mib}
    assert made.kept == kept, "both keep the same rows"
    figures |= {"kept": kept, "rows_per_s": given.rows / figures["ray_s"], "ratio": plain / figures["ray_s"]}
    print(json.dumps(figures) if given.json else "  ".join(f"{name} {value:.4g}" for name, value in figures.items()))


def _entries(file: Path | None, texts: list[str]) -> list[str]:
    if file:
        return all_entries(json.loads(line)["entry"] for line in file.read_text().splitlines())
    words = Words()
    for text in texts:
        words.add(folded(text))
    counted = Counted()
    counted.add(words.table())
    return all_entries(counted.entries(5, 10_000))


def _plain(corpus: Repeated, entries: list[str]) -> tuple[float, int]:
    """Seconds of the plain loop, and how many rows it keeps."""
    began, matcher = time.perf_counter(), Matcher(entries)
    numbers, texts = corpus.read(0, len(corpus))
    matched = [matcher(text) for text in texts]
    counts = np.zeros(len(entries), np.int64)
    for found in matched:
        counts[found] += 1
    chances = entry_chances(threshold_of(TAIL, counts), counts)
    rows = np.repeat(np.arange(len(matched)), [len(found) for found in matched])
    flat = chances[np.fromiter(itertools.chain.from_iterable(matched), np.int64)]
    kept = draws(numbers, 0) < row_chances(flat, rows, len(matched))
    return time.perf_counter() - began, int(np.count_nonzero(kept))


class _Peak:
    """The most memory of this process in a block, beyond what it had at its beginning."""

    def __enter__(self) -> None:
        self._process, self._over = psutil.Process(os.getpid()), threading.Event()
        self._before = self._most = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            self._most = max(self._most, self._process.memory_info().rss)

    @property
    def mib(self) -> float:
        return (self._most - self._before) / 2**20


if __name__ == "__main__":
    main()
