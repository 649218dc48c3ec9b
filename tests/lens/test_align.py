"""Characters and tokens: from stored ids, never from text again."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kdray.data.templates.chat import chat
from kdray.lens.align import align, decode_pieces, make_passage, mark_characters, mark_tokens
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
    for text, marked in [
        ("Ada lives in Paris .", "Paris"),
        ("Ada is in 日本 now .", "日本"),
        ("Ada lives in Paris .", "lives in "),
    ]:
        begin = text.index(marked)
        ids = ids_of(tokenizer, text)
        marks = mark_tokens(tokenizer, ids, text, [(begin, begin + len(marked))])
        chosen = tokenizer.decode([token for token, mark in zip(ids, marks, strict=True) if mark])
        assert str(chosen).strip() == marked.strip()


@pytest.mark.parametrize(
    ("text", "shown", "marked", "spans"),
    [
        ("Ada lives in Paris .", "Ada lives in Paris .", "Paris", ["Paris"]),
        ("\n Ada lives in Paris .", "Ada lives in Paris .", "\n Ada", ["Ada"]),
        ("Ada is in 日本 now .", "Ada is in 日本 now .", "日本", ["日本"]),
        ("Ada lives in Paris . And", "Ada lives in Paris .", " . And", ["."]),
        ("Ada lives in Paris .", "Ada lives in Rome .", "Paris", []),
    ],
)
def test_marked_tokens_are_found_in_the_answer_that_is_shown(
    tokenizer: PreTrainedTokenizerFast, text: str, shown: str, marked: str, spans: list[str]
) -> None:
    ids, begin = ids_of(tokenizer, text), text.index(marked)
    marks = mark_tokens(tokenizer, ids, text, [(begin, begin + len(marked))])
    found = mark_characters(tokenizer, ids, shown, marks)
    assert [shown[begin:end] for begin, end in found] == spans


@pytest.mark.parametrize(("response", "span"), [("It is bad. \n\n", (6, 13)), (" \n\n bad.", (0, 8))])
def test_white_space_at_either_end_may_be_marked_and_has_no_token(
    tokenizer: PreTrainedTokenizerFast, response: str, span: tuple[int, int]
) -> None:
    ids = ids_of(tokenizer, response.strip())
    marks = mark_tokens(tokenizer, ids, response, [span])
    marked = "".join(piece for piece, mark in zip(decode_pieces(tokenizer, ids), marks, strict=True) if mark)
    assert marked.strip() == "bad."


def byte_fallback(text: str) -> PreTrainedTokenizerFast:
    """A tokenizer as Llama 2's: `▁` for a space, bytes for what it has no token for, and no space before a text."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    for letter in sorted({"▁", *text}):
        if letter.isascii() or letter == "▁":
            vocabulary.setdefault(letter, len(vocabulary))
    made = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="</s>")


def test_the_space_after_a_character_of_several_byte_tokens_is_kept() -> None:
    text = "I like \U0001f600 cats and 漢 dogs"
    tokenizer = byte_fallback(text)
    ids = ids_of(tokenizer, text)
    pieces = decode_pieces(tokenizer, ids)
    assert "".join(pieces) == text
    assert len(pieces) == len(ids)
    assert make_passage(tokenizer, [*ids, 5], text, [6, 7]).n_context == len(ids)


def test_a_document_is_found_that_the_tokenizer_composes() -> None:
    composed, decomposed = "caf\u00e9 au lait", "cafe\u0301 au lait"
    made = Tokenizer(
        models.BPE({letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    made.normalizer, made.decoder = normalizers.NFC(), decoders.ByteLevel()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    prompt = ids_of(tokenizer, f"{decomposed} ?")
    assert tokenizer.decode(prompt) == f"{composed} ?"
    assert make_passage(tokenizer, prompt, decomposed, [1, 2]).n_context == len(prompt) - 2


def test_a_passage_beyond_the_models_window_is_left_out(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [
        Annotated(name, "Ada is in Paris . " * times, "in Rome", prompt=("", "\n"))
        for name, times in (("short", 1), ("long", 9))
    ]
    aligned, problems = align(rows, tokenizer, chat, reads=40)
    assert [row.id for row in aligned] == ["short"]
    assert [problem.id for problem in problems] == ["long"]
    assert problems[0].reason.endswith("the model reads 40")


def test_stored_ids_are_taken_as_they_are(tokenizer: PreTrainedTokenizerFast) -> None:
    """Ids that no tokenizer would make of the text: one a byte, with white space that the kept answer has lost."""
    ids = [token for letter in " \nin Rome" for token in ids_of(tokenizer, letter)]
    assert ids != ids_of(tokenizer, " \nin Rome")
    assert mark_tokens(tokenizer, ids, "in Rome", [(3, 5)]) == (False,) * 5 + (True, True, False, False)
    with pytest.raises(InputError, match="not the response 'in Oslo'"):
        mark_tokens(tokenizer, ids, "in Oslo", [])


def test_the_context_ends_with_the_document(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = ids_of(
        tokenizer, "Ada is in Paris .<|im_start|>user\nAda is in Paris .<|im_end|>\n<|im_start|>assistant\n"
    )
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
    assert sliding_windows([False, False, True, False], 2) == [
        Span(range(2), True),
        Span(range(1, 3), False),
        Span(range(2, 4), False),
    ]
    assert sliding_windows([False, True], 8) == [Span(range(2), False)]
