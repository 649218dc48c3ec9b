"""Which answers people rate, and in which order.

The answers are those of one pair of runs (see `kdray.report.page.cases`), to items drawn by a hash. Which of an item's
two answers stands on the left is decided by a hash too, over a secret that only the key has: who rates cannot know, and
neither can the page.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kdray.artifacts.files import read_object, reading
from kdray.report.arms import Arm, arm_of
from kdray.report.page.cases import at_random, kept_answers, typical_pair
from kdray.report.page.evidence import Evidence
from kdray.spec.errors import InputError, did_you_mean
from kdray.store import Store, io

KEY = "rating-key.json"
SIDES = ("left", "right")


@dataclass(frozen=True)
class RatedPair:
    """An item to be rated: its article, and the answers on the left and on the right."""

    item: int
    asked: str  # what the models were to do
    article: str
    answers: tuple[str, str]


@dataclass(frozen=True)
class Key:
    """Whose answers a sheet has: the arms, their runs, and by item whether the second arm's stands on the left."""

    sheet: str
    arms: tuple[str, str]
    runs: tuple[str, str]
    swapped: dict[int, bool]

    @property
    def items(self) -> list[int]:
        return list(self.swapped)


def make_sheet(evidence: Evidence, store: Store, count: int, arm: str | None = None) -> tuple[Key, list[RatedPair]]:
    """`count` items (or all that there are) with the answers of SFT and of an arm, by default the best.

    Raises:
        InputError: no such arm, or no two runs have answers to be compared.
    """
    chosen = _arm(evidence, arm) if arm else evidence.best
    pair = typical_pair(evidence, store, chosen) if chosen else None
    if pair is None:
        found = f"no scored answers of SFT and {chosen.name if chosen else 'another arm'} at one lr, batch and seed"
        raise InputError("GRID", found, "run it first, with a task that has answers")
    sft, other = (kept_answers(evidence, store, point, pair.metric) for point in (pair.sft, pair.other))
    shared = [item for item in pair.items if item in sft.rows and item in other.rows]
    items = at_random(shared, evidence.grid.name)[:count]
    secret, questions, swapped = secrets.token_hex(16), [], {}
    for item in items:
        swapped[item] = hashlib.sha256(f"{secret}:{item}".encode()).digest()[0] % 2 == 1
        answers = (sft.rows[item]["answer"], other.rows[item]["answer"])
        row = sft.rows[item]
        questions.append(RatedPair(item, row["question"], row["source"], answers[::-1] if swapped[item] else answers))
    arms = (arm_of(pair.sft).name, arm_of(pair.other).name)
    name = f"{evidence.grid.name}-{secret[:8]}"
    return Key(name, arms, (pair.sft.slug, pair.other.slug), swapped), questions


def write_key(key: Key, folder: Path) -> None:
    """Keep whose answers a sheet has.

    Raises:
        InputError: the folder has the key of another one, without which its ratings would be worth nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not io.put_json_if_absent(folder / KEY, asdict(key)):
        raise InputError(
            "GRID", f"has a sheet already, whose key is {folder / KEY}", "rate that one, or move the key away first"
        )


def read_key(folder: Path) -> Key:
    """The key of the sheet in a folder.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = folder / KEY
    if not path.is_file():
        raise InputError("--read", f"no {path}", "make a sheet first: kdray rate GRID")
    with reading(path):
        said = read_object(path)
        swapped = {int(item): bool(value) for item, value in said["swapped"].items()}
        return Key(str(said["sheet"]), _two(said["arms"]), _two(said["runs"]), swapped)


def _two(names: Sequence[str]) -> tuple[str, str]:
    first, second = names
    return str(first), str(second)


def _arm(evidence: Evidence, name: str) -> Arm:
    by_name = {arm.name: arm for arm in evidence.effects}
    if name not in by_name:
        raise InputError("--arm", f"no scored row '{name}' to be compared with SFT", did_you_mean(name, by_name))
    return by_name[name]
