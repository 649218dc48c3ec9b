"""What a model thinks before it answers, told apart from its answer.

A thought stands at the very beginning of what a model writes, between marks of its own; where the chat template has
opened it already (the prompt ends in `<think>`), the model writes the closing mark alone. Marks anywhere else are text
like any other. They are looked for in the ids with all special tokens spelled out: some models' marks are such, and
vanish from the text of an answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

TAIL = 32  # tokens at a prompt's end among which a mark is looked for


@dataclass(frozen=True)
class Marks:
    """Patterns of what opens and what closes a thought; `token`: what a tokenizer has as one token if its model closes
    thoughts so.
    """

    opening: re.Pattern[str]
    closing: re.Pattern[str]
    token: str


@dataclass(frozen=True)
class Thought:
    """`n_ids`: how many of the ids are the thought's, with its marks and the blanks behind it; all of them where it has
    no end.

    `text` is what stands between the marks, `end` the mark that closed it (None: nothing did, so nothing was answered).
    `rest` is text of the answer that shares a token with that mark.
    """

    n_ids: int
    text: str
    end: str | None
    rest: str = ""


def _plain(opening: str, closing: str, label: str = "") -> Marks:
    return Marks(re.compile(re.escape(opening) + label), re.compile(re.escape(closing)), closing)


MARKS = (
    _plain("<think>", "</think>"),  # DeepSeek-R1, QwQ, Qwen3, SmolLM3, GLM-4.5, EXAONE 4, Phi-4 and most others
    _plain("<thinking>", "</thinking>"),
    _plain("<thought>", "</thought>"),  # EXAONE Deep
    _plain("<reasoning>", "</reasoning>"),
    _plain("[THINK]", "[/THINK]"),  # Magistral
    _plain("<seed:think>", "</seed:think>"),  # Seed-OSS
    _plain("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker, Sky-T1
    _plain("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A Reasoning
    _plain("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    _plain("◁think▷", "◁/think▷"),  # Kimi
    _plain("<|channel>", "<channel|>", "(?:thought)?"),  # Gemma 4
    _plain("<unused94>", "<unused95>", "(?:thought)?"),  # MedGemma
    Marks(  # gpt-oss: all channels but the final one
        re.compile(r"<\|channel\|>(?!final)[^<]*(?:<\|message\|>)?"),
        re.compile(
            r"(?:<\|end\|>)?(?:<\|start\|>assistant)?<\|channel\|>final[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>"
        ),
        "<|channel|>",
    ),
)
# what some of these models put around the answer that follows a thought
WRAPPED = re.compile(
    r"\s*(?:<answer>|<response>|<\|begin_of_solution\|>)(.*?)(?:</answer>|</response>|<\|end_of_solution\|>)?\s*",
    re.DOTALL,
)


def split_thought(prompt: Sequence[int], output: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> Thought | None:
    """The thought at the beginning of `output`, the ids that a model wrote behind those of `prompt`; None where there
    is none.
    """
    text = _spelled(output, tokenizer)
    found = _find(text, opened_by(_spelled(prompt[-TAIL:], tokenizer)), tokenizer)
    if found is None:
        return None
    begin, stop, end = found
    if end is None:
        return Thought(len(output), text[begin:].strip(), None)
    low, high = 0, len(output)  # the mark is within the first `high` ids, and not within the first `low`
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _spelled(output[:middle], tokenizer).startswith(text[:end]) else (middle, high)
    rest = _spelled(output[:high], tokenizer)[end:].strip()
    while (
        not rest and high < len(output) and not str(tokenizer.decode([output[high]], skip_special_tokens=True)).strip()
    ):
        high += 1
    return Thought(high, text[begin:stop].strip(), text[stop:end], rest)


def unwrapped(answer: str) -> str:
    """The text of an answer behind a thought without the tags that some models put around it."""
    match = WRAPPED.fullmatch(answer)
    return match[1].strip() if match else answer


def opened_by(prompt: str) -> Marks | None:
    """The marks of the thought that a prompt has opened at its end, if it has."""
    prompt = prompt.rstrip()
    return next(
        (marks for marks in MARKS if any(match.end() == len(prompt) for match in marks.opening.finditer(prompt))), None
    )


def closed(prompt: str) -> str:
    """A prompt without an open thought: one that it has opened at its end is closed, with nothing in it."""
    marks = opened_by(prompt)
    return prompt if marks is None else f"{prompt.rstrip()}\n\n{marks.token}\n\n"


def _find(text: str, opened: Marks | None, tokenizer: Any) -> tuple[int, int, int | None] | None:
    """Where in `text` the thought begins, where it stops, and where its closing mark ends (None: nowhere)."""
    begin, stop, end = 0, 0, None
    marks, place = opened, 0
    while True:  # some models think more than once before they answer
        start = len(text) - len(text[place:].lstrip())
        for other in MARKS:
            if match := other.opening.match(text, start):
                begin, place, marks = (begin if end is not None else match.end()), match.end(), other
                break
        if marks is None:
            break
        if (closed := marks.closing.search(text, place)) is None:
            return begin, len(text), None
        stop, end = closed.span()
        place, marks = end, None
    return (begin, stop, end) if end is not None else _closed_alone(text, tokenizer)


def _closed_alone(text: str, tokenizer: Any) -> tuple[int, int, int] | None:
    """As `_find`, of a thought that nothing opened, as models write where another's prompt takes the place of their
    chat template.

    Only where the mark is a token of its own, and no opening one stands before it: otherwise it may be text about
    marks.
    """
    for marks in MARKS:
        closed = marks.closing.search(text)
        if closed and marks.token in tokenizer.get_added_vocab() and not marks.opening.search(text, 0, closed.start()):
            return 0, *closed.span()
    return None


def _spelled(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
