"""Languages of texts."""

from __future__ import annotations

import pytest

from kdray.curate.languages import language_of
from kdray.spec import InputError


def test_a_language_is_told_among_those_that_are_asked_for() -> None:
    assert language_of("Wie heißt die Hauptstadt von Frankreich?", ["en", "de", "fr"]) == "de"
    assert language_of("What is the capital of France?", ["en", "de", "fr"]) == "en"


def test_a_single_one_is_every_text_s() -> None:
    assert language_of("Wie heißt die Hauptstadt?", ["xx"]) == "xx"


def test_one_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InputError, match="languages: xx; known: ace, af, "):
        language_of("hello", ["en", "xx"])
