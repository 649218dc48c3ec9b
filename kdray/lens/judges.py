"""Annotations by a model: a judge that quotes what is wrong, or a consistency model that looks at each sentence.

Both take the model as a function, so that any client, local model or stand-in fits. The judge's prompts are the thesis's
(tables B.1 and B.2), word for word.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from kdray.lens.annotations import Annotated

VERSION = 1
Ask = Callable[[str], str]  # a prompt -> the judge's reply
Consistency = Callable[[Sequence[tuple[str, str]]], Sequence[float]]  # (document, claim) pairs -> P(consistent)

KINDS = {
    "summary": ("a proposed summary", "the proposed summary", "summary", "#Ground Truth Summary#", "#Proposed Summary#"),
    "answer": (
        "a proposed answer to a question",
        "the proposed answer",
        "answer",
        "#Ground Truth Answers (a list of valid answers)#",
        "#Proposed Answer#",
    ),
}
TASK = (
    "You will be provided with a document and {a_proposed}. Your task is to determine if {the_proposed} can be directly inferred "
    "from the document. If the {it} contains any information not found in the document, it is considered false. Even if the {it} is "
    "different from a ground truth {it}, it might still be true, as long as it doesn't contain false information. For each proposed "
    "{it}, explain why it is true or false based on the information from the document. Focus only on the original document's content, "
    "disregarding any external context."
)
VERDICT = (
    "After your explanation, give your final conclusion as **Conclusion: True** if {the_proposed} is completely accurate based on the "
    "document, or **Conclusion: False** if it contains any incorrect or unsupported information. If your conclusion is 'False', "
    "identify the exact phrases or name entities from the {it} that is incorrect by stating **Problematic Spans: [the inaccurate text "
    "spans from the {it}, in Python list of strings format]**."
)
CLOSING = (
    "Write your explanation first, and then give your final conclusion as **Conclusion: True** if {the_proposed} is completely "
    "accurate based on the document, or **Conclusion: False** if it contains any incorrect or unsupported information. Add "
    "**Problematic Spans: [the exact inaccurate text spans from the {it}, in a list of strings]** if your conclusion is 'False'."
)


def judge_prompt(kind: Literal["summary", "answer"], document: str, reference: str, response: str) -> str:
    """The prompt of table B.1 (`summary`) or B.2 (`answer`)."""
    a_proposed, the_proposed, it, truth, proposed = KINDS[kind]
    words = {"a_proposed": a_proposed, "the_proposed": the_proposed, "it": it}
    between = " " if kind == "summary" else "\n\n"
    task, verdict, closing = (text.format(**words) for text in (TASK, VERDICT, CLOSING))
    parts = [task + between + verdict, f"#Document#: {document}", f"{truth}: {reference}", f"{proposed}: {response}", closing]
    return "\n\n".join(parts)


def read_verdict(reply: str) -> tuple[bool | None, list[str]]:
    """Whether the judge called the response true (None: it did not conclude), and what it quoted as problematic.

    The last conclusion counts: a reply may repeat the question's words before it.
    """
    conclusions = re.findall(r"Conclusion\W+(True|False)", reply, re.IGNORECASE)
    conclusion = conclusions[-1].lower() == "true" if conclusions else None
    listed = re.findall(r"Problematic Spans\W*?(\[.*?\])\s*(?:\*\*|$|\n)", reply, re.IGNORECASE | re.DOTALL)
    if conclusion is not False or not listed:
        return conclusion, []
    try:
        quotes = ast.literal_eval(listed[-1])
    except (ValueError, SyntaxError):
        return conclusion, []
    return conclusion, [quote for quote in quotes if isinstance(quote, str)]


def annotate_by_judge(
    rows: Iterable[tuple[Annotated, str]], ask: Ask, kind: Literal["summary", "answer"] = "summary"
) -> Iterator[Annotated]:
    """The rows, given with their reference texts, with the spans that the judge quotes.

    A reply without a conclusion, or with "False" and no quotation, leaves the row unusable: it is `unfound`, not clean.
    """
    for row, reference in rows:
        conclusion, quotes = read_verdict(ask(judge_prompt(kind, row.document, reference, row.response)))
        if conclusion is None or (conclusion is False and not quotes):
            yield replace(row, unfound=(*row.unfound, "(the judge's reply quotes nothing)"))
        else:
            yield row.with_quotes(quotes)


def annotate_by_consistency(rows: Iterable[Annotated], score: Consistency, threshold: float = 0.5) -> Iterator[Annotated]:
    """The rows with each sentence a hallucinated span whose P(consistent with the document) is below `threshold`."""
    for row in rows:
        spans = sentences(row.response)
        scores = score([(row.document, row.response[begin:end]) for begin, end in spans]) if spans else []
        wrong = [span for span, value in zip(spans, scores, strict=True) if value < threshold]
        yield replace(row, spans=tuple(sorted({*row.spans, *wrong})))


def sentences(text: str) -> list[tuple[int, int]]:
    """[begin, end) of each sentence: up to a full stop, question or exclamation mark and white space, or a line's end."""
    return [match.span() for match in re.finditer(r"\S(?:[^\n]*?[.!?][\"'\u201d\u2019)]*(?=\s|$)|[^\n]*)", text)]
