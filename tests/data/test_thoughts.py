"""What a model thinks before it answers: found by its marks at the beginning, whatever tokens they are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AddedToken

from kdray.data.thoughts import split_thought, unwrapped
from tests.tiny import write_tokenizer

HARMONY = ("<|channel|>", "<|message|>", "<|start|>", "<|end|>")
ANSWER = "Ada lives in Paris ."


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One to which all marks are plain text."""
    return write_tokenizer(tmp_path_factory.mktemp("plain"))


def with_tokens(folder: Path, *tokens: str, special: bool) -> Any:
    made = write_tokenizer(folder)
    made.add_tokens([AddedToken(token, special=special, normalized=False) for token in tokens], special_tokens=special)
    return made


def ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def split(tokenizer: Any, output: str, prompt: str = "Where ?") -> tuple[str | None, str]:
    """The thought and the answer; a thought without an end is followed by None."""
    written = ids(tokenizer, output)
    found = split_thought(ids(tokenizer, prompt), written, tokenizer)
    if found is None:
        return None, tokenizer.decode(written)
    return (
        found.text,
        f"{found.rest}{tokenizer.decode(written[found.n_ids :], skip_special_tokens=True)}" if found.end else "(none)",
    )


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<think>", "</think>"),
        ("<thinking>", "</thinking>"),
        ("<thought>", "</thought>"),
        ("[THINK]", "[/THINK]"),
        ("<seed:think>", "</seed:think>"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        ("<|channel>thought", "<channel|>"),
    ],
)
@pytest.mark.parametrize("kind", ["text", "tokens", "special tokens"])
def test_marks_are_known_whatever_tokens_they_are(
    opening: str, closing: str, kind: str, tokenizer: Any, tmp_path: Path
) -> None:
    if kind != "text":
        own = HARMONY if "<|channel|>" in opening else (opening, closing)
        tokenizer = with_tokens(tmp_path, *own, special=kind == "special tokens")
    assert split(tokenizer, f"{opening}\nBen ? No , Ada .\n{closing}\n\n{ANSWER}") == ("Ben ? No , Ada .", ANSWER)
    assert split(tokenizer, f"\n {opening} Ben ?") == ("Ben ?", "(none)")  # it was stopped on the way
    assert split(tokenizer, f"Ben ? {closing}{ANSWER}", f"Where ?\n{opening}\n") == ("Ben ?", ANSWER)
    assert split(tokenizer, "Ben ?", f"Where ?{opening}") == ("Ben ?", "(none)")
    assert split(tokenizer, f"{opening}{closing}{ANSWER}") == ("", ANSWER)


def test_an_answer_that_speaks_of_marks_is_an_answer(tokenizer: Any, tmp_path: Path) -> None:
    own = with_tokens(tmp_path, "<think>", "</think>", special=False)
    for text in ("Say <think> first .", "The tags <think> and </think> mark it .", "a < b", "<b>think</b>"):
        assert split(tokenizer, text) == split(own, text) == (None, text)
    assert split(tokenizer, "It ends with </think> .") == (None, "It ends with </think> .")
    assert split(own, ANSWER, "Where ?<think>\n\n</think>\n\n") == (None, ANSWER)  # the template has closed it


def test_a_thought_that_nothing_opened_ends_at_a_token_of_its_own(tmp_path: Path) -> None:
    assert split(with_tokens(tmp_path, "</think>", special=False), f"Ben ?</think>\n{ANSWER}") == ("Ben ?", ANSWER)


def test_all_channels_but_the_final_one_are_thought(tmp_path: Path) -> None:
    own = with_tokens(tmp_path, *HARMONY, special=True)
    start, final = "<|end|><|start|>assistant", "<|channel|>final<|message|>"
    said = f"<|channel|>analysis<|message|>a{start}<|channel|>commentary<|message|>b{start}{final}{ANSWER}"
    assert split(own, said)[1] == split(own, f"{final}{ANSWER}")[1] == ANSWER
    assert (
        own.decode(ids(own, f"{final}{ANSWER}"), skip_special_tokens=True) == f"final{ANSWER}"
    )  # what is to be avoided


def test_thinking_twice_and_what_shares_a_token_with_the_mark(tokenizer: Any) -> None:
    assert split(tokenizer, f"<think>a</think>\n<think>b</think>{ANSWER}") == ("a</think>\n<think>b", ANSWER)
    assert split(tokenizer, "<think>a</think>\n<think>b")[1] == "(none)"

    class Merged:
        """The mark's last character is in one token with the answer's first."""

        pieces = ("<think>", "a", "</think", '>"', "Ada", '"')

        def decode(self, ids: list[int], **_: Any) -> str:
            return "".join(self.pieces[i] for i in ids)

    found = split_thought([1], list(range(6)), Merged())  # type: ignore[arg-type]
    assert found is not None
    assert (found.n_ids, found.text, found.rest) == (4, "a", '"')


def test_blanks_and_special_tokens_behind_a_thought_are_not_the_answers(tmp_path: Path) -> None:
    own = with_tokens(tmp_path, "<|END_THINKING|>", "<|START_RESPONSE|>", special=True)
    written = ids(own, f"<|START_THINKING|>a<|END_THINKING|>\n \n<|START_RESPONSE|>{ANSWER}")
    found = split_thought([], written, own)
    assert found is not None
    assert written[found.n_ids :] == ids(own, ANSWER)


@pytest.mark.parametrize(
    "tags", ["<answer>\n{}\n</answer>", "<response>{}", "<|begin_of_solution|>\n\n{}\n\n<|end_of_solution|>", "{}"]
)
def test_tags_around_an_answer_go(tags: str) -> None:
    assert unwrapped(tags.format(ANSWER)) == ANSWER
