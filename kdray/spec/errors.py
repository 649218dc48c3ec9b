"""The one exception for what a user got wrong: it names the field, what was found and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The user's input cannot be used. `str()` is one line: `field: found; allowed`."""

    def __init__(self, field: str, found: str, allowed: str) -> None:
        self.field, self.found, self.allowed = field, found, allowed
        super().__init__(" ".join(f"{field}: {found}; {allowed}".split()))

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str]]:
        return type(self), (self.field, self.found, self.allowed)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'? (known: ...)`, or only the known names where none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    listing = ", ".join(names) or "none"
    return f"did you mean '{close[0]}'? (known: {listing})" if close else f"known: {listing}"
