"""Words of text in any script, by Unicode's properties, and how many of them a narrower tokeniser sees.

A word is what stands between spaces. Scripts without spaces between words (Chinese, Japanese, Thai, Lao, Khmer,
Burmese, Tibetan) have no words that a rule could find: there a character with its marks counts as one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

import regex

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\u30fc\uff70\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
CHARACTER = regex.compile(rf"[{UNSPACED}]")
WORD = regex.compile(rf"[{UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED}]]+", regex.V1)
PIECE = regex.compile(rf"[{UNSPACED}][\p{{M}}\p{{P}}]*|[^\s{UNSPACED}]+")
BETWEEN_SPACES = regex.compile(r"\S+")
JOINERS = dict.fromkeys(map(ord, "\u00ad\u200c\u200d"))  # a soft hyphen, and what shapes letters: they divide no word
RUN_ON = 8  # characters of such a script between two spaces: words have up to 4 on average
MOST = 0.5


def tokens(text: str) -> list[str]:
    """The words of `text`, without punctuation, as they compare: case, width and form of characters do not matter
    (NFKC).
    """
    return WORD.findall(unicodedata.normalize("NFKC", text.translate(JOINERS)).casefold())


def unseen(texts: Sequence[str], sees: Callable[[str], bool]) -> tuple[int, int]:
    """How many of all words of `texts` a tokeniser does not see, and of how many; numbers count only where there is
    nothing else.
    """
    words = [word for text in texts for word in WORD.findall(text.lower())]
    words = [word for word in words if regex.search(r"\p{L}", word)] or words
    return sum(not sees(word) for word in words), len(words)


def ends_of_words(text: str) -> list[int]:
    """Where each word of `text` ends, with what punctuation stands behind it.

    A text is taken by characters where spaces part its sentences at best; a foreign name in a text with spaces is one
    word, and a text that somebody has cut into words stays so.
    """
    run_on = len(CHARACTER.findall(text)) > RUN_ON * len(text.split())
    pattern = PIECE if run_on else BETWEEN_SPACES
    return [found.end() for found in pattern.finditer(text)]


def count_words(text: str) -> int:
    """How many words `text` has."""
    return len(ends_of_words(text))


def first_words(text: str, count: int | None) -> str:
    """`text` up to its word number `count` (None: the last one), the space between words as it is."""
    ends = ends_of_words(text)[:count]
    return text[: ends[-1]].strip() if ends else ""
