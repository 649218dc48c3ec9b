"""Text split into sentences by a rule, without a model or data of its own."""

from __future__ import annotations

import re

END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9])|\n+")
ABBREVIATION = re.compile(r"(?:^|\s)(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|No|Gen|Sen|Gov|Rep|[A-Z])\.$")


def split(text: str) -> list[str]:
    """The sentences of `text` without the space around them. Lines end sentences; an initial or a title does not."""
    sentences, start = [], 0
    for match in END.finditer(text):
        if "\n" not in match.group() and ABBREVIATION.search(text[start : match.start()]):
            continue
        sentences.append(text[start : match.end()].strip())
        start = match.end()
    return [sentence for sentence in [*sentences, text[start:].strip()] if sentence]
