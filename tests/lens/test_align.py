"""Characters and tokens: from stored ids, never from text again."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from kdray.data.templates.chat import chat
from kdray.lens.align import align, decode_pieces, make_passage, mark_tokens
from kdray.lens.annotations import Annotated
from kdray.lens.spans import Span, predefined_spans, sliding_windows
from kdray.spec.errors import InputError
from tests.tiny import write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def ids_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("text", ["Ada lives in Paris .", "naïve 日本 \U0001f642 end", " \n x", "<|im_start|>user\nA"])
def test_pieces_are_the_text(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = ids_of(tokenizer, text)
    pieces = decode_pieces(tokenizer, ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == text


def test_a_token_is_hallucinated_where_one_of_its_characters_is(tokenizer: PreTrainedTokenizerFast) -> None:
    for text, marked in [("Ada lives in Paris .", "Paris"), ("Ada is in 日本 now .", "日本"), ("Ada lives in Paris .", "lives in ")]:
        begin = text.index(marked)
        ids = ids_of(tokenizer, text)
        marks = mark_tokens(tokenizer, ids, text, [(begin, begin + len(marked))])
        chosen = tokenizer.decode([token for token, mark in zip(ids, marks, strict=True) if mark])
        assert str(chosen).strip() == marked.strip()


def test_stored_ids_are_taken_as_they_are(tokenizer: PreTrainedTokenizerFast) -> None:
    """Ids that no tokenizer would make of the text: one a byte, with white space that the kept answer has lost."""
    ids = [token for letter in " \nin Rome" for token in ids_of(tokenizer, letter)]
    assert ids != ids_of(tokenizer, " \nin Rome")
    assert mark_tokens(tokenizer, ids, "in Rome", [(3, 5)]) == (False,) * 5 + (True, True, False, False)
    with pytest.raises(InputError, match="not the response 'in Oslo'"):
        mark_tokens(tokenizer, ids, "in Oslo", [])


def test_the_context_ends_with_the_document(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = ids_of(tokenizer, "Ada is in Paris .<|im_start|>user\nAda is in Paris .<|im_end|>\n<|im_start|>assistant\n")
    passage = make_passage(tokenizer, prompt, "Ada is in Paris .", [1, 2, 3])
    assert tokenizer.decode(prompt[: passage.n_context]).endswith("user\nAda is in Paris .")
    assert (passage.n_prompt, passage.n_response) == (len(prompt), 3)
    for document, message in [("Ben", "it is not in the prompt"), (" ", "document: empty")]:
        with pytest.raises(InputError, match=message):
            make_passage(tokenizer, prompt, document, [1, 2, 3])


def test_rows_that_cannot_be_used_are_reported(tokenizer: PreTrainedTokenizerFast) -> None:
    stored = {"input_ids": tuple(ids_of(tokenizer, "Rome ?\n")), "output_ids": tuple(ids_of(tokenizer, "in Rome"))}
    rows = [
        Annotated("template", "Ada is in Paris . Ben is not .", "in Rome", ((3, 7),)),
        Annotated("prompt", "Ada is in Paris .", "in Rome", prompt=("Read: ", "\nAnswer:")),
        Annotated("stored", "Rome", "in Rome", ((3, 7),), **stored),
        Annotated("lost", "Rome", "in Rome", unfound=("Oslo",)),
        Annotated("other", "Rome", "in Oslo", **stored),
        Annotated("short", "Rome", "A"),
    ]
    aligned, problems = align(rows, tokenizer, chat, max_words=5)
    assert [row.id for row in aligned] == ["template", "prompt", "stored"]
    assert [problem.id for problem in problems] == ["lost", "other", "short"]
    assert "'Oslo' is not in the response" in problems[0].reason
    text = tokenizer.decode(aligned[0].passage.input_ids[: aligned[0].passage.n_context])
    assert str(text).endswith("Ada is in Paris .")  # cut at five words, as the tasks cut their articles
    assert any(aligned[0].hallucinated)
    assert not any(aligned[1].hallucinated)


@pytest.mark.parametrize(
    ("marks", "spans"),
    [
        ("....", [([0, 1, 2, 3], True)]),
        ("..xx.", [([0, 1], True), ([2, 3], False), ([4], True)]),
        ("x.x..", [([0, 2], False), ([3, 4], True)]),
        ("xx", [([0, 1], False)]),
    ],
)
def test_predefined_spans(marks: str, spans: list[tuple[list[int], bool]]) -> None:
    assert [(list(span.tokens), span.factual) for span in predefined_spans([mark == "x" for mark in marks])] == spans


def test_sliding_windows() -> None:
    assert sliding_windows([False, False, True, False], 2) == [Span(range(2), True), Span(range(1, 3), False), Span(range(2, 4), False)]
    assert sliding_windows([False, True], 8) == [Span(range(2), False)]
