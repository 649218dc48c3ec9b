"""Text split into sentences by a rule, without a model or data of its own.

A full stop, question or exclamation mark ends one before a space and a capital, a digit or a letter of a script without
capitals; the marks of Chinese, Japanese, Hindi, Arabic, Urdu, Armenian and Ethiopic do so by themselves. Thai and its
like have no such marks: there only a line ends a sentence.
"""

from __future__ import annotations

import regex

# \uff0e: full-width, between digits it is a point
MARKS = "\u3002\uff01\uff1f\uff0e\uff61\u0964\u0965\u061f\u06d4\u0589\u1362"
CLOSERS = "\"')\\]\u201d\u2019\u300d\u300f\uff09\u00bb"
END = regex.compile(
    r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[\p{Lu}\p{Lt}\p{Lo}\p{Nd}])"
    rf"|(?<=[{MARKS}])[{CLOSERS}]*+\s*+(?=[^{MARKS}{CLOSERS}])(?<!\d[\uff0e](?=\d))"
    r"|\n+"
)
ABBREVIATION = regex.compile(
    r"(?:^|[\s\"'(\[])(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|No|Gen|Sen|Gov|Rep|(?:\p{L}{1,2}\.)+\p{L}|\p{Lu})\.$"
)


def split(text: str) -> list[str]:
    """The sentences of `text` without the space around them. Lines end sentences; an initial, a title or
    dotted letters (`U.S.`, `p.m.`, `Ph.D.`) do not: of 79 such in 935 news articles 4 ended one.
    """
    return [text[begin:end] for begin, end in spans(text)]


def spans(text: str) -> list[tuple[int, int]]:
    """Where the sentences of `text` begin and end, as `split` finds them."""
    bounds, start = [], 0
    for match in END.finditer(text):
        if "\n" not in match.group() and ABBREVIATION.search(text[start : match.start()]):
            continue
        bounds.append((start, match.end()))
        start = match.end()
    parts = [(begin, text[begin:end]) for begin, end in [*bounds, (start, len(text))]]
    leads = [(begin + len(part) - len(part.lstrip()), part.strip()) for begin, part in parts]
    return [(begin, begin + len(sentence)) for begin, sentence in leads if sentence]
