"""References: what they mean, and that their text is a faithful name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kdray.spec.refs import Reference, names_of, parse_reference
from kdray.store import Key, Store
from tests.conftest import TinyGrid
from tests.spec.wrong import cases, check

COMMIT, SHA = "0123456789" * 4, "ab" * 32


@pytest.mark.parametrize(
    "text",
    [
        "hf:org/name",
        "hf:gpt2",
        "hf:org/name@main",
        "hf:org/name@refs/pr/3",
        f"hf:org/name@{COMMIT}",
        "hf:org/name#config=3.0.0&split=test",
        f"hf:org/name@{COMMIT}#split=train[:100]",
        "file:a/b c.jsonl",
        "file:/a/b#c=d.jsonl",
        "wheel:pkg==1.0.post1/a/b c.gguf",
        f"wheel:pkg==1!1.0+cpu/a.gguf#sha256={SHA}",
        f"https://host:8080/a%20b/c.pkl#sha256={SHA}",
    ],
)
def test_a_reference_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_reference(text)) == text


@pytest.mark.parametrize(
    ("text", "pinned"),
    [
        ("hf:a/b", False),
        ("hf:a/b@main", False),
        (f"hf:a/b@{COMMIT[:-1]}", False),
        (f"hf:a/b@{COMMIT}", True),
        ("file:a", False),
        ("wheel:a==1/b", False),
        (f"wheel:a==1/b#sha256={SHA}", True),
        (f"https://a/b#sha256={SHA}", True),
    ],
)
def test_only_a_commit_or_a_hash_pins(text: str, pinned: bool) -> None:
    assert parse_reference(text).pinned is pinned


def test_pinning_keeps_everything_else() -> None:
    assert parse_reference("hf:a/b@main#split=test").pin(COMMIT) == Reference("hf", "a/b", COMMIT, split="test")
    assert parse_reference("wheel:a==1/b").pin(SHA) == Reference("wheel", "a", "1", "b", sha256=SHA)


@pytest.mark.parametrize(
    ("text", "gguf"), [("file:x.gguf", True), ("wheel:a.gguf==1/b.bin", False), ("wheel:a==1/b.gguf", True)]
)
def test_gguf_is_told_by_the_file_that_is_read(text: str, gguf: bool) -> None:
    assert parse_reference(text).is_gguf is gguf


def test_a_tilde_is_the_home_folder() -> None:
    assert parse_reference("file:~/x").name == os.path.expanduser("~/x") != "~/x"


REFERENCES = {
    "no scheme": ("my-model", ["'my-model' has no known scheme", "write hf:org/name@commit, file:path, wheel:"]),
    "unknown scheme": ("s3:bucket/model", ["'s3:bucket/model' has no known scheme", "write hf:"]),
    "an address alone": (
        "https://huggingface.co/a/b",
        ["names no file by its content", "https://host/path#sha256=HEX, or hf:org/name"],
    ),
    "an address without a file": (f"https://host/#sha256={SHA}", ["names no file by its content"]),
    "an address with a password": (
        f"https://me:secret@host/a#sha256={SHA}",
        ["'https://...@host/a#", "names no file by its content"],
    ),
    "an address with half a hash": ("https://host/a#sha256=ab", ["sha256 'ab'", "64 lower-case"]),
    "an address that anyone may change": (f"http://host/a#sha256={SHA}", ["has no known scheme"]),
    "nothing": ("", ["'' has no known scheme"]),
    "no path": ("file:", ["'file:' names no path", "write file:path"]),
    "no hub id": ("hf:", ["'hf:' is no hub id", "write hf:org/name@commit"]),
    "a hub id of three parts": ("hf:a/b/c", ["is no hub id"]),
    "a hub id that climbs": ("hf:../../etc", ["is no hub id"]),
    "a hub id with a space": ("hf: a/b", ["is no hub id"]),
    "an empty revision": ("hf:a/b@", ["is no hub id"]),
    "an unknown option of the hub": (
        "hf:a/b#revision=1",
        ["'#revision=1'", "allowed after #, once each: config=..., split=..."],
    ),
    "an empty option": ("hf:a/b#split=", ["'#split='", "allowed after #"]),
    "an option twice": ("hf:a/b#split=a&split=b", ["'#split=b'", "once each"]),
    "an option without a value": ("hf:a/b#train", ["'#train'", "allowed after #"]),
    "a wheel without a version": ("wheel:pkg/file.gguf", ["is no wheel reference", "write wheel:NAME==VERSION/path"]),
    "a wheel without a path": ("wheel:pkg==1.0", ["is no wheel reference"]),
    "a wheel of any version": ("wheel:pkg==1.*/x", ["is no wheel reference"]),
    "a wheel that is an option of pip's": ("wheel:--pre==1/x", ["is no wheel reference"]),
    "a path out of the wheel": ("wheel:pkg==1.0/../../x", ["the path '../../x' leaves the wheel", "without '..'"]),
    "a path out of the wheel in the middle": ("wheel:pkg==1.0/a/../../x", ["leaves the wheel"]),
    "an absolute path": ("wheel:pkg==1.0//etc/passwd", ["the path '/etc/passwd' leaves the wheel"]),
    "a Windows path": ("wheel:pkg==1.0/a\\..\\b", ["leaves the wheel"]),
    "a short sha256": ("wheel:pkg==1.0/x#sha256=abc", ["sha256 'abc'", "64 lower-case hexadecimal digits"]),
    "a sha256 in capitals": (f"wheel:pkg==1.0/x#sha256={'A' * 64}", ["64 lower-case hexadecimal digits"]),
    "an unknown option of a wheel": (
        "wheel:pkg==1.0/x#md5=abc",
        ["'#md5=abc'", "allowed after #, once each: sha256=..."],
    ),
    "an option of the hub on a wheel": ("wheel:pkg==1.0/x#split=test", ["'#split=test'"]),
}


@cases(REFERENCES)
@pytest.mark.parametrize("field", ["student.model", "teacher.model", "data.source"])
def test_a_wrong_reference_is_named(wrong: str, said: list[str], field: str, tiny_grid: TinyGrid) -> None:
    check(tiny_grid.text({field: wrong}), [f"{field}: ", *said])


def test_models_out_of_a_store_are_named_by_their_slugs(tmp_path: Path) -> None:
    keys = [Key("student", slug, f"{i:012x}") for i, slug in enumerate(["lr1e-05-b4-a0", "lr1e-05-b4-a1"])]
    made = [Store(tmp_path).begin(key, {}).path for key in keys]
    given = [*(f"file:{path}" for path in made), f"file:{tmp_path}/attempt-001", "hf:org/name", "file:a/b.gguf"]
    assert list(names_of(given, "--model")) == [*(key.slug for key in keys), "attempt-001", "name", "b"]
