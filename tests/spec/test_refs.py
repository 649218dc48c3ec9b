"""References: what they mean, and that their text is a faithful name."""

from __future__ import annotations

import os

import pytest

from kdray.spec.refs import Reference, parse_reference

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


@pytest.mark.parametrize(("text", "gguf"), [("file:x.gguf", True), ("wheel:a.gguf==1/b.bin", False), ("wheel:a==1/b.gguf", True)])
def test_gguf_is_told_by_the_file_that_is_read(text: str, gguf: bool) -> None:
    assert parse_reference(text).is_gguf is gguf


def test_a_tilde_is_the_home_folder() -> None:
    assert parse_reference("file:~/x").name == os.path.expanduser("~/x") != "~/x"
