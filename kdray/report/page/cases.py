"""Cases: articles with the answers of SFT and of the best arm side by side, chosen by a rule that is printed above
them.

The answers are those of one pair of runs of equal lr, batch and seed: of all pairs the one whose difference is nearest
to the mean. Of its items are shown those on which the arm beats SFT most, those on which it falls behind most, and some
at random: the smallest hashes of the grid's name and the item's number, so that nobody can choose them.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kdray.artifacts.answers import read_answers
from kdray.artifacts.scores import DOUBTED, SPANS, read_rows, read_scores
from kdray.plan.steps import ScoreStep, Step
from kdray.report.arms import Arm, arm_of
from kdray.report.items import KEPT_AS
from kdray.report.page.evidence import Evidence
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.decodings import PLAIN
from kdray.spec.metric_names import MetricName
from kdray.spec.points import Point
from kdray.store import Artifact, Store

WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
SAME = 1e-9
Spans = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Piece:
    """A stretch of an answer: whether a metric calls it unsupported, whether it is a word of content that the article
    has not, and whether it is in windows that a lens doubts.
    """

    text: str
    unsupported: bool = False
    new: bool = False
    doubted: bool = False


@dataclass(frozen=True)
class Said:
    """What one model answered, in pieces, and the score that it got for it."""

    who: str
    pieces: list[Piece]
    score: str


@dataclass(frozen=True)
class Case:
    """One example."""

    item: int
    article: str
    references: list[str]
    answers: list[Said]


@dataclass(frozen=True)
class Cases:
    """The cases by what they were chosen for, the rule, whose spans are marked (empty: nobody's), and whether a lens's
    are.
    """

    metric: MetricName
    rule: str
    marked_by: str
    by_lens: bool
    groups: list[tuple[str, list[Case]]]


@dataclass(frozen=True)
class Pair:
    """Two runs that share all but their arm, and what both have been scored on: values by item."""

    metric: MetricName
    sft: Point
    other: Point
    values: tuple[dict[int, float], dict[int, float]]

    @property
    def items(self) -> list[int]:
        """The items that both have a value for."""
        return sorted(self.values[0].keys() & self.values[1].keys())

    def gain(self, item: int) -> float:
        """How much better the other's answer is than SFT's."""
        return (-1 if self.metric.lower_is_better else 1) * (self.values[1][item] - self.values[0][item])


def cases_of(evidence: Evidence, store: Store) -> Cases | None:
    """The cases of a grid; None where `report.cases` is 0, or no two runs have answers to be compared."""
    count, pair = evidence.grid.report.cases, typical_pair(evidence, store) if evidence.grid.report.cases else None
    if not pair:
        return None
    drawn = at_random(pair.items, evidence.grid.name)  # sorted again, this decides among equals
    better = [item for item in sorted(drawn, key=lambda item: -pair.gain(item)) if pair.gain(item) > SAME][:count]
    worse = [item for item in sorted(drawn, key=pair.gain) if pair.gain(item) < -SAME][:count]
    random = [item for item in drawn if item not in (*better, *worse)][:count]
    name = arm_of(pair.other).name
    titles = {f"Where {name} is better": better, "Where SFT is better": worse, "At random": random}
    kept = [kept_answers(evidence, store, point, pair.metric) for point in (pair.sft, pair.other)]
    groups = [(title, [_case(item, pair, kept) for item in items]) for title, items in titles.items() if items]
    rule = (
        f"Scores are {pair.metric}'s, of the final checkpoints of the two runs at lr {pair.sft.lr:g}, batch"
        f" {pair.sft.batch}, seed {pair.sft.seed}: of all such pairs the one whose difference is nearest to the mean."
        f" Of their {len(pair.items)} common items stand here up to {count} on which {name} beats SFT most, up to"
        f" {count} on which it falls behind most, and {count} more at random (those with the smallest sha256 of"
        f" “{evidence.grid.name}:item”, which decides among equals too)."
    )
    marked = dict.fromkeys(whose for answers in kept for whose in answers.marked_by)
    return Cases(pair.metric, rule, ", ".join(marked), any(answers.doubted for answers in kept), groups)


def typical_pair(evidence: Evidence, store: Store, arm: Arm | None = None) -> Pair | None:
    """The pair of runs of SFT and `arm` (by default the best) whose difference is nearest to the mean of all pairs.

    By the primary metric or, where that is not of answers, by the first that is.
    """
    arm = arm or evidence.best
    for metric in dict.fromkeys((evidence.primary, *evidence.metrics)):
        scores = evidence.scores(metric) if any(_asked(evidence, metric, None)) else {}
        deltas = {
            (sft, point): score.value - scores[sft].value
            for point, score in scores.items()
            if arm_of(point) == arm
            and (sft := Point(alpha=0.0, lr=point.lr, batch=point.batch, seed=point.seed)) in scores
        }
        mean = statistics.fmean(deltas.values()) if deltas else 0.0
        for sft, other in sorted(deltas, key=lambda pair: abs(deltas[pair] - mean)):
            found = [_values(evidence, store, point, metric) for point in (sft, other)]
            if found[0] and found[1]:
                return Pair(metric, sft, other, (found[0], found[1]))
    return None


def at_random(items: Iterable[int], seed: str) -> list[int]:
    """The items in an order that nobody chose: by the sha256 of `seed:item`."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{seed}:{item}".encode()).hexdigest())


def pieces_of(answer: str, article: str, spans: Spans, doubted: Spans = ()) -> list[Piece]:
    """An answer cut where a span of either kind begins or ends, or a word that neither the article has nor
    scikit-learn's list of stop words.
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    known = {_plain(word) for word in WORD.findall(article)} | ENGLISH_STOP_WORDS
    new = [match.span() for match in WORD.finditer(answer) if _plain(match[0]) not in known] if article.strip() else []
    inside, lens = ([(max(begin, 0), min(end, len(answer))) for begin, end in some] for some in (spans, doubted))
    edges = sorted({0, len(answer), *(edge for span in (*new, *inside, *lens) for edge in span)})
    found: list[Piece] = []
    for begin, end in itertools.pairwise(edges):
        found.append(
            Piece(answer[begin:end], *(any(a <= begin and end <= b for a, b in some) for some in (inside, new, lens)))
        )
    return found


def _plain(word: str) -> str:
    return word.casefold().replace("\u2019", "'")


@dataclass(frozen=True)
class Kept:
    """A run's answers by item, the spans in them that metrics call unsupported, and those that a lens doubts."""

    who: str
    rows: dict[int, dict[str, Any]]
    spans: dict[int, list[tuple[int, int]]]
    marked_by: list[str]
    doubted: dict[int, list[tuple[int, int]]]


def _asked(evidence: Evidence, metric: MetricName, point: Point | None) -> list[ScoreStep]:
    """The steps that measure answers of the metric's task and decoding at a point's final checkpoint; of any point, if
    it is None.
    """
    final = evidence.finals.get(point) if point else None
    return [
        score
        for score in evidence.plan.scores
        if score.generate and (score.task.name, score.decoding) == (metric.task, metric.decoding or PLAIN)
        if point is None or (final and (score.subject, score.position) == (point, final.position))
    ]


def _made(store: Store, step: Step) -> Artifact | None:
    """What a step has made; nothing of one that is not resolved yet, such as a metric whose model was never asked
    for.
    """
    return store.get(step.key) if step.id else None


def _values(evidence: Evidence, store: Store, point: Point, metric: MetricName) -> dict[int, float]:
    """The metric's values by item, of the answers at a point's final checkpoint."""
    column = KEPT_AS.get(metric.metric, metric.metric)
    for score in _asked(evidence, metric, point):
        artifact = _made(store, score.measure)
        if artifact and metric.metric in read_scores(artifact.path):
            rows = read_rows(artifact.path, ["example"], [column]).to_pylist()
            return {int(row["example"]): float(row[column]) for row in rows if isinstance(row.get(column), int | float)}
    return {}


def kept_answers(evidence: Evidence, store: Store, point: Point, metric: MetricName) -> Kept:
    """What the run of a point answered at its final checkpoint, to the task of a metric."""
    rows: dict[int, dict[str, Any]] = {}
    found: dict[str, dict[int, list[tuple[int, int]]]] = {SPANS: {}, DOUBTED: {}}
    whose: list[str] = []
    for score in _asked(evidence, metric, point):
        answers = score.generate and _made(store, score.generate)
        if answers and not rows:
            rows = {row["example"]: row for row in read_answers(answers.path)}
        measured = _made(store, score.measure)
        table = read_rows(measured.path, ["example"], [SPANS, DOUBTED]) if measured else None
        for column in (SPANS, DOUBTED):
            if table is None or column not in table.column_names:
                continue
            if column == SPANS:
                uses = [use["name"] for use in score.measure.params["metrics"]]
                whose += [name for name in uses if declared(declare.Metric, name).spans]
            for row in table.to_pylist():
                found[column].setdefault(int(row["example"]), []).extend((int(a), int(b)) for a, b in row[column] or [])
    return Kept(arm_of(point).name, rows, found[SPANS], whose, found[DOUBTED])


def _case(item: int, pair: Pair, kept: Sequence[Kept]) -> Case:
    rows = [run.rows.get(item, {}) for run in kept]
    article = rows[0].get("source", "")
    answers = [
        Said(
            run.who,
            pieces_of(row.get("answer", ""), article, run.spans.get(item, ()), run.doubted.get(item, ())),
            f"{values[item]:.2f}",
        )
        for run, row, values in zip(kept, rows, pair.values, strict=True)
    ]
    return Case(item, article or rows[0].get("question", ""), list(rows[0].get("references", [])), answers)
