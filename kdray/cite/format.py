"""How citations are written: `<C1>`, `<C2>`, ... before a document's sentences, and of an answer

    <statement>It rained. <cite>[1-1][3-4]</cite></statement>

for each of its statements (SelfCite, section 5.4.1). `parse` reads any text. What is not as it should be is a finding;
the words are kept all the same, in the statement that they stand in or else in one of their own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

TAG = re.compile(r"(</?(?:statement|cite)>)")
CITATION = re.compile(r"\[\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?\]")  # longer numbers are no sentence's
Kind = Literal[
    "outside",  # words outside of a statement, or behind its citations
    "unclosed_statement",
    "unclosed_cite",
    "stray_tag",  # one that closes what is not open
    "second_cite",  # citations of a statement in two places
    "unreadable_citation",  # something else between <cite> and </cite>
    "backwards",  # [4-2]
    "beyond_document",  # sentences that the document does not have; those that it has are kept
    "empty_statement",
]


@dataclass(frozen=True)
class Span:
    """Sentences of a document from the `first` to the `last`, which is one of them; they are counted from 1."""

    first: int
    last: int


@dataclass(frozen=True)
class Statement:
    """What is said, without space around it, and the sentences that are cited for it."""

    text: str
    cites: tuple[Span, ...] = ()

    @property
    def sentences(self) -> list[int]:
        """The places in a list of the document's sentences, from 0, that are cited; each once, in order."""
        return sorted({number - 1 for span in self.cites for number in range(span.first, span.last + 1)})


@dataclass(frozen=True)
class Finding:
    """What of an answer cannot be read, and the piece of it."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Parsed:
    """An answer's statements in order, and what was wrong with it."""

    statements: tuple[Statement, ...]
    findings: tuple[Finding, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many findings there are of each kind that there is."""
        return dict(Counter(finding.kind for finding in self.findings))


def number(sentences: Sequence[str]) -> str:
    """A document's text with a mark before each sentence."""
    return " ".join(f"<C{i}>{sentence}" for i, sentence in enumerate(sentences, 1))


def write(statements: Iterable[Statement]) -> str:
    """Statements as a model writes them."""
    return "".join(f"<statement>{each.text} <cite>{write_cites(each.cites)}</cite></statement>" for each in statements)


def write_cites(cites: Iterable[Span]) -> str:
    """Citations as they stand between their tags."""
    return "".join(f"[{span.first}-{span.last}]" for span in cites)


def parse(answer: str, n_sentences: int) -> Parsed:
    """The statements of any text about a document of so many sentences."""
    reader = _Reader(n_sentences)
    for piece in TAG.split(answer):
        reader.read(piece)
    return reader.end()


def parse_cites(text: str, n_sentences: int) -> tuple[tuple[Span, ...], tuple[Finding, ...]]:
    """The citations in what stands between their tags, and what is wrong with it."""
    spans, findings, end = [], [], 0
    for match in CITATION.finditer(text):
        findings += _unread(text[end : match.start()])
        end = match.end()
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            findings.append(Finding("backwards", match[0]))
            continue
        there = Span(max(first, 1), min(last, n_sentences))
        if there != Span(first, last):
            findings.append(Finding("beyond_document", match[0]))
        if there.first <= there.last:
            spans.append(there)
    return tuple(spans), (*findings, *_unread(text[end:]))


def _unread(text: str) -> list[Finding]:
    return [Finding("unreadable_citation", text.strip())] if text.strip() else []


@dataclass
class _Reader:
    """Reads an answer tag by tag. `opened`: the statement at hand, if there is one, began with its tag."""

    n_sentences: int
    done: list[Statement] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    words: str = ""
    cites: tuple[Span, ...] = ()
    opened: bool = False
    cited: bool = False
    citing: bool = False

    def read(self, piece: str) -> None:
        match piece:
            case "<statement>":
                self.leave()
                self.opened = True
            case "</statement>":
                if not (self.opened or self.words):
                    self.find("stray_tag", piece)
                self.leave(closed=True)
            case "<cite>":
                if self.citing:
                    self.find("unclosed_cite", piece)
                elif self.cited:
                    self.find("second_cite", piece)
                elif not (self.opened or self.words):
                    self.find("outside", piece)
                self.citing = self.cited = True
            case "</cite>":
                if not self.citing:
                    self.find("stray_tag", piece)
                self.citing = False
            case _ if self.citing:
                cites, findings = parse_cites(piece, self.n_sentences)
                self.cites += cites
                self.findings += findings
            case _ if piece.strip() or (self.words and not self.cited):
                self.say(piece)

    def say(self, piece: str) -> None:
        """Take up words, of the statement at hand or, where it is over or none is open, of one of their own."""
        if self.cited:
            self.leave(closed=True)
        if not (self.opened or self.words):
            self.find("outside", piece.strip())
        self.words += piece

    def leave(self, closed: bool = False) -> None:
        """End the statement at hand."""
        text = self.words.strip()
        if self.citing:
            self.find("unclosed_cite", text)
        if self.opened and not closed:
            self.find("unclosed_statement", text)
        if text:
            self.done.append(Statement(text, self.cites))
        elif self.opened or self.cited:
            self.find("empty_statement", write_cites(self.cites))
        self.words, self.cites, self.opened, self.cited, self.citing = "", (), False, False, False

    def find(self, kind: Kind, text: str) -> None:
        self.findings.append(Finding(kind, text))

    def end(self) -> Parsed:
        self.leave()
        return Parsed(tuple(self.done), tuple(self.findings))
