"""Annotated responses: which characters of a response its document does not support.

Annotations come from the sources in `kdray/lens/sources` (files of people's annotations) and from
`kdray.score.annotate` (a metric that is asked). Documents are compared by sketches of their content, so that an article
counts as the same with other capitals, other spacing, its first sentence left out or its end cut off.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from kdray.spec.errors import InputError

SHINGLE, SKETCH, SHARED = 12, 16, 4  # words; hashes kept of a document; so many in common make two documents one
Sketch = tuple[str, ...]


@dataclass(frozen=True)
class Annotated:
    """A response, the document that it must be true to, and its hallucinated spans as [begin, end) character offsets.

    Stored ids, where there are any, are the model's own and never made again: `input_ids` of the prompt and
    `output_ids`. Without them `prompt`, the text before and after the document, is used; without that, a template.

    Raises:
        InputError: a span that lies outside the response.
    """

    id: str
    document: str
    response: str
    spans: tuple[tuple[int, int], ...] = ()
    unfound: tuple[str, ...] = ()  # quoted by an annotator, but not in the response
    prompt: tuple[str, str] | None = None
    input_ids: tuple[int, ...] | None = None
    output_ids: tuple[int, ...] | None = None
    writer: str = ""  # the model that wrote the response; empty where it is not known

    def __post_init__(self) -> None:
        for begin, end in self.spans:
            if not 0 <= begin < end <= len(self.response):
                found = f"[{begin}, {end}) in a response of {len(self.response)} characters"
                raise InputError(
                    f"annotations '{self.id}'", f"a span {found}", "offsets must be 0 <= start < end <= length"
                )

    def with_quotes(self, quotes: Iterable[str]) -> Annotated:
        """With the spans that an annotator quoted: every occurrence of each; those that do not occur are `unfound`."""
        spans, unfound = set(self.spans), list(self.unfound)
        for quote in (quote.strip() for quote in quotes):
            places = [match.start() for match in re.finditer(re.escape(quote), self.response)] if quote else []
            spans |= {(place, place + len(quote)) for place in places}
            unfound += [] if places or not quote else [quote]
        return replace(self, spans=tuple(sorted(spans)), unfound=tuple(unfound))


def statistics(annotated: Sequence[Annotated]) -> dict[str, float]:
    """The numbers of the thesis's Table 4.1, and those of spans: `correct` is the percentage without a hallucinated
    span.
    """
    clean = sum(not (row.spans or row.unfound) for row in annotated)
    return {
        "examples": len(annotated),
        "documents": len({sketch(row.document) for row in annotated}),
        "correct": 100 * clean / max(len(annotated), 1),
        "spans": sum(len(row.spans) for row in annotated),
        "unfound": sum(len(row.unfound) for row in annotated),
    }


def sketch(document: str) -> Sketch:
    """The smallest hashes of a document's runs of words: what two copies of it have in common, however they are
    printed.
    """
    words = re.findall(r"\w+", document.lower())
    runs = {" ".join(words[i : i + SHINGLE]) for i in range(max(len(words) - SHINGLE + 1, 1))}
    return tuple(sorted(hashlib.sha256(run.encode()).hexdigest()[:12] for run in runs)[:SKETCH])


class Documents:
    """A set of documents by their sketches."""

    def __init__(self, sketches: Iterable[Sketch]) -> None:
        self.sketches = sorted(set(sketches))
        self._by_hash: dict[str, list[int]] = {}
        for i, known in enumerate(self.sketches):
            for value in known:
                self._by_hash.setdefault(value, []).append(i)

    def __contains__(self, document: str | Sketch) -> bool:
        own = sketch(document) if isinstance(document, str) else document
        common: dict[int, int] = {}
        for value in own:
            for i in self._by_hash.get(value, ()):
                common[i] = common.get(i, 0) + 1
        return any(count >= min(SHARED, len(own), len(self.sketches[i])) for i, count in common.items())
