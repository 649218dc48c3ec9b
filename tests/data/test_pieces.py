"""Tokens as bytes, and which tokens of two tokenizers begin behind the same text."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from kdray.data.pieces import first_tokens, same_places, token_bytes
from kdray.spec.errors import InputError
from tests.tiny import write_tokenizer

TEXTS = ["Ada lives in Paris now .", "a  b\n\n c", "日本 naïve 🙂", "international houses"]


def sentencepiece() -> PreTrainedTokenizerFast:
    """BPE over ▁, with a token for every byte, as Llama 2 has it."""
    names = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"AdalivesinPr", "▁i", "▁in"]
    vocabulary = {name: id for id, name in enumerate(dict.fromkeys(names))}
    merges = [("▁", "i"), ("▁i", "n")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


def wordpiece() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=["<unk>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator([*TEXTS, "Ada lives in Paris , Rome and Oslo"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


@pytest.fixture
def byte_level(tmp_path: Path) -> PreTrainedTokenizerFast:
    return write_tokenizer(tmp_path)


@pytest.mark.parametrize("text", TEXTS)
def test_the_bytes_of_a_texts_tokens_are_the_text(byte_level: PreTrainedTokenizerFast, text: str) -> None:
    writes = token_bytes(byte_level)
    assert b"".join(writes[id] or b"" for id in byte_level(text)["input_ids"]) == text.encode()


def test_sentencepiece_writes_spaces_and_bytes() -> None:
    tokenizer = sentencepiece()
    writes = token_bytes(tokenizer)
    text = "Ada lives in Paris"
    assert b"".join(writes[id] or b"" for id in tokenizer(text)["input_ids"]) == text.encode()
    assert writes[tokenizer.eos_token_id] is None


def test_wordpiece_writes_a_space_before_a_word() -> None:
    tokenizer = wordpiece()
    writes, ids = token_bytes(tokenizer), tokenizer("Ada lives")["input_ids"]
    assert b"".join(writes[id] or b"" for id in ids) == b" Ada lives"


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "</s>": 1}, unk_token="a"))
    with pytest.raises(InputError, match=r"soft_labels.align.*decodes by nothing"):
        token_bytes(PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>"))


def cut(text: bytes, places: set[int]) -> list[bytes]:
    ends = [0, *sorted(place for place in places if 0 < place < len(text)), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(ends)]


@settings(deadline=None)
@given(st.text(max_size=12), st.sets(st.integers(1, 40)), st.sets(st.integers(1, 40)))
def test_tokens_are_paired_where_the_text_before_them_is_the_same(text: str, ours: set[int], theirs: set[int]) -> None:
    mine, other = cut(text.encode(), ours), cut(text.encode(), theirs)
    expected = [
        (i, j)
        for i in range(len(mine))
        for j in range(len(other))
        if mine[i] and b"".join(mine[:i]) == b"".join(other[:j])
    ]
    assert same_places(mine, other) == expected
    assert same_places(mine, mine) == [(i, i) for i, piece in enumerate(mine) if piece]


def test_white_space_that_differs_is_no_place() -> None:
    ours, theirs = [b"Ada", b" lives", b"\n\n", b" in"], [b" Ada", b" ", b"li", b"ves", b" in"]
    assert same_places(ours, theirs) == [(0, 0), (1, 2), (3, 4)]


def test_texts_that_differ_are_paired_up_to_there() -> None:
    assert same_places([b"a", b"b", b"x", b"c"], [b"a", b"b", b"y", b"c"]) == [(0, 0), (1, 1), (2, 2)]


def test_a_token_of_special_text_is_in_no_pair() -> None:
    assert same_places([b"a", b"", b"b"], [b"a", b"b"]) == [(0, 0), (2, 1)]


def test_with_equal_tokenizers_every_token_is_its_own_first(byte_level: PreTrainedTokenizerFast) -> None:
    assert first_tokens(byte_level, byte_level) == list(range(len(byte_level)))
    other = sentencepiece()
    assert first_tokens(other, other) == list(range(len(other)))


def test_a_longer_token_begins_with_what_ours_begins_it_with(
    byte_level: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    other = write_tokenizer(tmp_path / "other", extra="Parisians livestock " * 50)
    first, writes, named = first_tokens(other, byte_level), token_bytes(other), byte_level.get_vocab()
    found = {writes[id]: byte_level.convert_ids_to_tokens(ours) for id, ours in enumerate(first) if writes[id]}
    longer = [piece for piece in found if piece not in token_bytes(byte_level)]
    assert longer
    for piece in longer:  # what is said of a token is what the tokenizer does with its text
        assert named[found[piece]] == byte_level(piece.decode())["input_ids"][0]
    assert first[other.eos_token_id] == byte_level.eos_token_id


def test_a_byte_is_a_byte_whatever_its_name(byte_level: PreTrainedTokenizerFast) -> None:
    first, theirs = first_tokens(sentencepiece(), byte_level), sentencepiece().get_vocab()
    assert token_bytes(byte_level)[first[theirs["<0xE6>"]]] == b"\xe6"
    assert first[theirs["<unk>"]] == -1
