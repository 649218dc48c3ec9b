"""Prompts with a document's sentences as tokens: nothing is lost, and a sentence goes with its space."""

from __future__ import annotations

import pytest

from kdray.cite.layout import lay_out, statements_of
from kdray.models.loaded import Loaded
from kdray.spec.errors import InputError

SENTENCES = ["Ada is in Paris.", "Ben is in Rome!", "Where is Cleo?", "Änne lives in Oslo \u2014 now."]
DOCUMENT = " ".join(SENTENCES[:2]) + "\n\n" + " ".join(SENTENCES[2:])
BEFORE, BEHIND = "Read : ", "\nWhere does Ada live?\n"


def encode(tiny: Loaded, text: str) -> list[int]:
    return tiny.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_the_whole_prompt_is_as_it_was(tiny: Loaded) -> None:
    ids = encode(tiny, BEFORE + DOCUMENT + BEHIND)
    laid = lay_out(tiny.tokenizer, ids, f" {DOCUMENT}\n", thought=[7, 8])
    assert laid.prompt(laid.all) == [*ids, 7, 8]
    assert list(laid.texts) == SENTENCES
    assert tiny.tokenizer.decode(laid.head) == BEFORE.rstrip() or tiny.tokenizer.decode(laid.head) == BEFORE
    assert tiny.tokenizer.decode(laid.tail[:-2]) == BEHIND


@pytest.mark.parametrize("left_out", range(4))
def test_a_sentence_goes_with_the_space_before_it(left_out: int, tiny: Loaded) -> None:
    laid = lay_out(tiny.tokenizer, encode(tiny, BEFORE + DOCUMENT + BEHIND), DOCUMENT)
    text = tiny.tokenizer.decode(laid.prompt(laid.all - {left_out}))
    assert SENTENCES[left_out] not in text
    assert " ".join(text.split()) == " ".join(
        [*BEFORE.split(), *SENTENCES[:left_out], *SENTENCES[left_out + 1 :], *BEHIND.split()]
    )
    assert tiny.tokenizer.decode(laid.prompt(())).split() == [*BEFORE.split(), *BEHIND.split()]


def test_a_document_is_cut_by_sentences(tiny: Loaded) -> None:
    laid = lay_out(tiny.tokenizer, encode(tiny, BEFORE + DOCUMENT + BEHIND), DOCUMENT)
    room = len(laid.prompt({0, 1, 2}))
    assert laid.within(None) is laid
    assert len(laid.within(room).sentences) == len(laid.within(room + len(laid.sentences[3]) - 1).texts) == 3
    assert laid.within(room).prompt({0, 1, 2, 3}) == laid.prompt({0, 1, 2})
    assert len(laid.within(room - 1).sentences) == 2
    assert laid.within(2).sentences == ()


def test_a_prompt_without_the_document_or_with_nothing_else_is_refused(tiny: Loaded) -> None:
    with pytest.raises(InputError, match="not in the prompt"):
        lay_out(tiny.tokenizer, encode(tiny, "Hello."), DOCUMENT)
    with pytest.raises(InputError, match="it is the whole prompt"):
        lay_out(tiny.tokenizer, encode(tiny, DOCUMENT), DOCUMENT)


def test_an_answers_tokens_by_sentence_and_no_stop(tiny: Loaded) -> None:
    ids = encode(tiny, "\n Ada lives in Paris. Ben is Änne.\n\n#Stop")
    texts, statements = statements_of(tiny.tokenizer, ids, "Ada lives in Paris. Ben is Änne.")
    assert texts == ["Ada lives in Paris.", "Ben is Änne."]
    assert [tiny.tokenizer.decode(part).strip() for part in statements] == texts
    assert statements_of(tiny.tokenizer, [], "") == ([], [])
    assert statements_of(tiny.tokenizer, encode(tiny, " \n"), "") == ([], [])
