"""What an answer's citations are worth to the model that wrote them: the rewards of SelfCite (Chuang et al. 2025, arXiv
2502.09604), of the best of several citations and of the model's own, in nats a token of the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdray.cite.format import Statement, parse_cites, write
from kdray.score.answers import Answer
from kdray.spec import declare

DECLARED = declare.Metric(
    version=1,
    scores=("cite_best", "cite_plain", "cite_sound", "cite_some", "cite_length"),
    needs=("source",),
    cited=True,
    counts=("documents_cut", "sentences_cut", "without_citations"),
)
ANY = 10**9  # sentences of a document: kept citations are of its own


def citations(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Nothing of answers by a decoding that does not cite."""
    return [{} if answer.cited is None else _row(answer.cited) for answer in answers]


def _row(cited: Mapping[str, Any]) -> dict[str, Any]:
    statements, cut = cited["statements"], cited["cut"]
    noted = {"documents_cut": int(cut > 0), "sentences_cut": cut, "without_citations": int(not statements)}
    if not statements:
        return noted
    tokens, count = sum(each["tokens"] for each in statements), len(statements)
    read = [Statement(each["text"], parse_cites(each["best"], ANY)[0]) for each in statements]
    return {
        "cite_best": sum(each["best_reward"] for each in statements) / tokens,
        "cite_plain": sum(each["plain_reward"] for each in statements) / tokens,
        "cite_sound": 100 * sum(each["sound"] for each in statements) / count,
        "cite_some": 100 * sum(bool(each.cites) for each in read) / count,
        "cite_length": sum(len(each.sentences) for each in read) / count,
        "cited": write(read),
        **noted,
    }
