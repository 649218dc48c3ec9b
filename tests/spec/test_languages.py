"""Languages that texts are told apart by."""

from __future__ import annotations

import pytest

from kdray.spec import InputError
from kdray.spec.languages import IDENTIFIED, require_identified


@pytest.mark.slow
def test_they_are_the_identifiers_own() -> None:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    assert set(LanguageIdentifier.from_model_file(MODEL_FILE).labels) == IDENTIFIED


def test_one_of_several_must_be_known_and_a_single_one_may_be_any() -> None:
    require_identified(["en", "de"], "x")
    require_identified(["xx"], "x")
    with pytest.raises(InputError, match="x: xx, frr; known: ace, af, "):
        require_identified(["xx", "en", "frr"], "x")
