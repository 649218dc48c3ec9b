"""How metrics of words cut a text: by their own tool's rule, which is made for English, or by one for every script.

What the tool's own rule does not see would score 0 against itself, or 100 against anything with the same year in it. So
a row most of whose reference words are unseen has no number but an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import regex

from kdray.data.words import CHARACTER, MOST, unseen

NO_REFERENCE = "no reference to compare with"


def in_ascii(word: str) -> bool:
    """Whether rouge-score's own tokeniser sees a word: it knows a to z and, where there are no letters, 0 to 9."""
    return bool(regex.search("[a-z]" if regex.search(r"\p{L}", word) else "[0-9]", word))


def between_spaces(word: str) -> bool:
    """Whether a rule that cuts at spaces sees a word."""
    return not CHARACTER.match(word)


def whole(word: str) -> bool:
    """The rule for every script sees every word."""
    return True


def not_comparable(
    references: Sequence[str], sees: Callable[[str], bool], instead: str = "set tokenizer: unicode"
) -> str | None:
    """Why no text can be compared with `references` by a tokeniser that `sees` certain words, and what to do; None if
    one can.
    """
    if not references:
        return NO_REFERENCE
    lost, count = unseen(references, sees)
    if not count:
        return "the reference holds no word"
    if lost / count > MOST:
        return f"the default tokenizer sees nothing in {lost} of the {count} words of the reference; {instead}"
    return None
