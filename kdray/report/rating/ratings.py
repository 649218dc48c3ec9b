"""Ratings read back: are raters of one mind, and whose answers are more often supported by their articles?

The difference is that of the report's tables, over items instead of runs: of each item the share of raters who call the
arm's answer supported, less that of SFT's, with Student's t over the items.
"""

from __future__ import annotations

import csv
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdray.report.crossed import crossed
from kdray.report.rating.sheet import SIDES, Key
from kdray.spec.errors import InputError

COLUMNS = ("sheet", "rater", "item", "side", "supported")
VALUES = {"1": 1, "0": 0}
Place = tuple[int, str]  # an item, and the side on which the answer stood


@dataclass(frozen=True)
class Ratings:
    """One rater's: 1 where the answer was called supported, 0 where not."""

    rater: str
    values: dict[Place, int]


@dataclass(frozen=True)
class Agreement:
    """Of two raters: the answers that both have rated, the share that they rated alike, and Cohen's kappa (None:
    undefined).
    """

    raters: tuple[str, str]
    both: int
    alike: float
    kappa: float | None


@dataclass(frozen=True)
class Outcome:
    """What people say: percent of answers called supported by arm, and the mean paired difference with its 95%
    interval.
    """

    arms: tuple[str, str]
    shares: tuple[float, float]
    items: int
    difference: float
    interval: tuple[float, float] | None
    better: int  # items on which the arm's answer is called supported more often than SFT's
    worse: int
    agreements: list[Agreement]
    notes: list[str]


def read_ratings(path: Path, key: Key) -> Ratings:
    """One file that the page saved.

    Raises:
        InputError: it is no such file, of another sheet, of several raters, or it rates an answer twice or in another
            way.
    """
    field = f"--read {path}"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if list(reader.fieldnames or ()) != list(COLUMNS):
                raise InputError(
                    field,
                    f"the columns {', '.join(reader.fieldnames or ()) or 'of nothing'}",
                    f"needs {', '.join(COLUMNS)}",
                )
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(field, f"no csv ({error})", "give the file that the page saved") from None
    raters, values = dict.fromkeys(str(row["rater"]) for row in rows), dict[Place, int]()
    if len(raters) != 1:
        raise InputError(field, f"{len(raters)} raters", "give one file a rater, with a rating in it")
    for number, row in enumerate(rows, start=2):
        place = _place(field, number, row, key, values)
        values[place] = VALUES[row["supported"]]
    return Ratings(next(iter(raters)), values)


def _place(field: str, number: int, row: dict[str, str], key: Key, known: dict[Place, int]) -> Place:
    """Which answer a line is about."""
    if row["sheet"] != key.sheet:
        raise InputError(field, f"line {number} is of the sheet '{row['sheet']}'", f"ratings of '{key.sheet}'")
    if row["item"] not in map(str, key.items) or row["side"] not in SIDES:
        raise InputError(
            field,
            f"line {number} rates '{row['side']}' of item '{row['item']}'",
            "left or right of an item of the sheet",
        )
    if row["supported"] not in VALUES:
        raise InputError(field, f"line {number} says '{row['supported']}'", "1, supported, or 0")
    place = int(row["item"]), row["side"]
    if place in known:
        raise InputError(field, f"line {number} rates {place[1]} of item {place[0]} again", "every answer once")
    return place


def outcome_of(key: Key, ratings: Sequence[Ratings]) -> Outcome:
    """What some raters' ratings of one sheet say together. Items on which not both answers are rated by one rater are
    left out of it.

    Raises:
        InputError: two files are of one rater, or no item has both answers rated.
    """
    names = [each.rater for each in ratings]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError("--read", f"two files of the rater '{twice}'", "one file a rater")
    wanted = 2 * len(key.items)
    notes = [
        f"{each.rater}: {wanted - len(each.values)} of {wanted} answers are not rated"
        for each in ratings
        if len(each.values) < wanted
    ]
    pairs: dict[int, list[tuple[int, int]]] = {}
    for each in ratings:
        for item, swapped in key.swapped.items():
            sides = [each.values.get((item, side)) for side in SIDES]
            if sides[0] is not None and sides[1] is not None:
                pairs.setdefault(item, []).append((sides[1], sides[0]) if swapped else (sides[0], sides[1]))
    if not pairs:
        raise InputError("--read", "no item has both answers rated", "rate both of at least one item")
    means = [tuple(statistics.fmean(values) for values in zip(*rated, strict=True)) for rated in pairs.values()]
    deltas = [100 * (other - sft) for sft, other in means]
    sft, other = (100 * statistics.fmean(values) for values in zip(*means, strict=True))
    return Outcome(
        arms=key.arms,
        shares=(sft, other),
        items=len(deltas),
        difference=statistics.fmean(deltas),
        interval=interval_of(deltas),
        better=sum(delta > 0 for delta in deltas),
        worse=sum(delta < 0 for delta in deltas),
        agreements=[agreement_of(*two) for two in itertools.combinations(ratings, 2)],
        notes=notes,
    )


def interval_of(deltas: Sequence[float]) -> tuple[float, float] | None:
    """Student's 95% interval of a mean; None of a single one."""
    found = crossed(np.array([deltas]))
    return found.interval() if found else None


def agreement_of(one: Ratings, other: Ratings) -> Agreement:
    """Cohen's kappa over the answers that both have rated; undefined where both gave all of them one and the same
    rating.
    """
    from sklearn.metrics import cohen_kappa_score

    places = sorted(one.values.keys() & other.values.keys())
    first, second = ([each.values[place] for place in places] for each in (one, other))
    alike = sum(a == b for a, b in zip(first, second, strict=True))
    varied = len({*first, *second}) > 1
    kappa = float(cohen_kappa_score(first, second)) if varied else None
    return Agreement((one.rater, other.rater), len(places), 100 * alike / len(places) if places else 0.0, kappa)


def told(outcome: Outcome) -> list[str]:
    """An outcome in sentences."""
    (sft, arm), (share, other) = outcome.arms, outcome.shares
    ends = f" [{outcome.interval[0]:+.1f}, {outcome.interval[1]:+.1f}]" if outcome.interval else ""
    sure = outcome.interval and (outcome.interval[0] > 0 or outcome.interval[1] < 0)
    lines = [
        f"Called supported by their articles: {other:.1f}% of {arm}'s answers, {share:.1f}% of {sft}'s.",
        (
            f"{arm} against {sft}: {outcome.difference:+.1f}{ends} points over {outcome.items} items,"
            f" 95%{'' if sure else ' (not distinguishable from no difference)'}; better on {outcome.better}, worse on"
            f" {outcome.worse}."
        ),
    ]
    for each in outcome.agreements:
        if not each.both:
            lines.append(f"{each.raters[0]} and {each.raters[1]}: no answer that both have rated.")
            continue
        kappa = "undefined: all ratings are the same" if each.kappa is None else f"{each.kappa:.2f}"
        lines.append(
            f"{each.raters[0]} and {each.raters[1]}: Cohen's kappa {kappa}, {each.alike:.0f}% alike of {each.both}"
            " answers."
        )
    return lines + [f"Note: {note}." for note in outcome.notes]
