"""Which language a text is in."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from kdray.spec.errors import InputError


@functools.cache
def _identifier(languages: tuple[str, ...]) -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    if unknown := sorted(set(languages) - set(identifier.labels)):
        raise InputError("languages", ", ".join(unknown), f"known: {', '.join(sorted(identifier.labels))}")
    identifier.set_languages(list(languages))
    return identifier


def language_of(text: str, languages: Sequence[str]) -> str:
    """The one of `languages`, ISO 639-1 codes, in which a text most likely is; the only one without a look.

    Raises:
        InputError: one of several is not known to the identifier.
    """
    return languages[0] if len(languages) == 1 else _identifier(tuple(languages)).classify(text)[0]
