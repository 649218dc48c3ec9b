"""What a task makes of a row of its data set, and the forms in which that can be put to a model."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Question:
    """What is asked about which text (may be empty), the right answers and, where a task knows some, wrong ones.

    `asks` is the question that a judge should know of; empty for a summary, where the instruction says nothing more.
    `id` is what the data set calls the row, if the task reads that.
    """

    instruction: str
    text: str
    references: list[str]
    wrong: list[str] = field(default_factory=list)
    asks: str = ""
    id: str = ""


@dataclass(frozen=True)
class Form:
    """A plain-text prompt: `{text}`, `{instruction}` and `{question}`, what is asked, stand for the question's; `stops`
    end an answer.

    A stop counts only behind the first word of an answer: a model that begins with a blank line, which is quite usual
    behind `Summary:`, would otherwise answer nothing at all.
    """

    prompt: str
    stops: tuple[str, ...] = ()
