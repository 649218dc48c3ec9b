"""What each token of a tokenizer writes, in bytes, and where two tokenizers begin a token at the same place of a text.

Bytes, because a token of a byte-level tokenizer may end inside of a character.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from kdray.spec.errors import InputError

WORD = "▁"  # SentencePiece's space


def token_bytes(tokenizer: Any) -> list[bytes | None]:
    """What every token id writes, in UTF-8, in the middle of a text; None of special tokens, and of ids that are none.

    Raises:
        InputError: the tokenizer is not of the `tokenizers` library, or of a kind that is not known here.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError("soft_labels.align", "a tokenizer without tokenizer.json", "give one that has it")
    described = json.loads(backend.to_str())
    writes = _writer(described["decoder"])
    added = {
        token["id"]: None if token["special"] else token["content"].encode() for token in described["added_tokens"]
    }
    vocabulary = {id: text for text, id in backend.get_vocab(with_added_tokens=False).items()}
    ids = range(max([*vocabulary, *added]) + 1)
    return [added[id] if id in added else writes(vocabulary[id]) if id in vocabulary else None for id in ids]


def same_places(ours: Sequence[bytes], theirs: Sequence[bytes]) -> list[tuple[int, int]]:
    """The pairs of tokens, by number, that begin behind the same text: where two models' next tokens can be compared.

    Texts that differ in white space are compared without it, and its tokens then are in no pair; texts that differ
    otherwise, up to where they do.
    """
    if b"".join(ours) != b"".join(theirs):
        ours, theirs = ([b"".join(piece.split()) for piece in pieces] for pieces in (ours, theirs))
    mine, other = b"".join(ours), b"".join(theirs)
    shared = next((i for i, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), min(len(mine), len(other)))
    begins = {place: i for i, place in _begins(theirs)}
    return [(i, begins[place]) for i, place in _begins(ours) if place <= shared and place in begins]


def first_tokens(theirs: Any, ours: Any) -> list[int]:
    """By token id of the tokenizer `theirs`: the first token that `ours` writes the same text with; -1 for none.

    With equal tokenizers every id is its own. Ends of text are each other's. Otherwise a token that both have is
    itself, and a text that is no token of ours begins with whatever ours begins it with.
    """
    their_bytes, our_bytes = token_bytes(theirs), token_bytes(ours)
    by_text: dict[bytes, int] = {}
    for id, piece in enumerate(our_bytes):
        if piece:
            by_text.setdefault(piece, id)
    named = ours.get_vocab()
    found, cut = [-1] * len(their_bytes), []
    for name, id in theirs.get_vocab().items():
        piece, twin = their_bytes[id], named.get(name)
        if twin is not None and our_bytes[twin] == piece:
            found[id] = twin
        elif piece and piece in by_text:
            found[id] = by_text[piece]
        elif piece:
            cut.append(id)
    for id, begun in zip(cut, _begun([their_bytes[id] or b"" for id in cut], ours, our_bytes), strict=True):
        found[id] = _longest(their_bytes[id] or b"", by_text) if begun is None else begun
    found[theirs.eos_token_id] = ours.eos_token_id
    return found


def _begun(texts: Sequence[bytes], tokenizer: Any, pieces: Sequence[bytes | None]) -> list[int | None]:
    """The token that a tokenizer begins each text with; None where that is not known, as of a part of a character, or
    where it puts something before a text.
    """
    whole = [text.decode("utf-8", "replace") for text in texts]
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"] if whole else []
    firsts = [some[0] if some else None for some in ids]
    return [
        first if first is not None and (piece := pieces[first]) and text.startswith(piece) else None
        for first, text in zip(firsts, texts, strict=True)
    ]


def _longest(text: bytes, by_text: Mapping[bytes, int]) -> int:
    """The longest token that a text begins with; -1 for none."""
    return next((by_text[text[:end]] for end in range(len(text), 0, -1) if text[:end] in by_text), -1)


def _begins(pieces: Sequence[bytes]) -> list[tuple[int, int]]:
    """The tokens that write something, by number, and where in the text each begins."""
    places = itertools.accumulate(map(len, pieces), initial=0)
    return [(i, place) for i, (piece, place) in enumerate(zip(pieces, places, strict=False)) if piece]


def _writer(decoder: Mapping[str, Any] | None) -> Any:
    """What a tokenizer's decoder makes of a token's name in the middle of a text: a function to bytes."""
    steps = decoder["decoders"] if decoder and decoder["type"] == "Sequence" else [decoder] if decoder else []
    kinds = {step["type"]: step for step in steps}
    if "ByteLevel" in kinds:
        letters = _byte_letters()
        return lambda name: bytes(letters[letter] for letter in name)
    if "WordPiece" in kinds:
        prefix = kinds["WordPiece"]["prefix"]
        return lambda name: name.removeprefix(prefix).encode() if name.startswith(prefix) else f" {name}".encode()
    if "Metaspace" in kinds or "Replace" in kinds:
        return lambda name: _byte_of(name) if "ByteFallback" in kinds and _byte_of(name) else _spaced(name)
    shown = ", ".join(kinds) or "nothing"
    raise InputError(
        "soft_labels.align",
        f"a tokenizer that decodes by {shown}",
        "one at the level of bytes, SentencePiece or WordPiece",
    )


def _spaced(name: str) -> bytes:
    return name.replace(WORD, " ").encode()


def _byte_of(name: str) -> bytes:
    """The byte that SentencePiece calls `<0x0A>`; nothing of another token."""
    return bytes.fromhex(name[3:5]) if len(name) == 6 and name.startswith("<0x") and name.endswith(">") else b""


def _byte_letters() -> dict[str, int]:
    """The letter that stands for each byte in byte-level tokenizers (Radford et al. 2019): itself where it can be
    seen, otherwise one from 256 on.
    """
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + i): byte for i, byte in enumerate(hidden)}
