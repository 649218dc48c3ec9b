"""The reward of a citation (SelfCite, section 5.3.2): how much less likely a statement is without the cited sentences,
and how likely it stays with them alone.

    drop(E)   = log p(statement | C) - log p(statement | C \\ E)
    hold(E)   = log p(statement | E) - log p(statement | C)
    reward(E) = drop(E) + hold(E)                                    (equation 5.1)

in nats, by the model that answered, with the question and what the answer said before in the context of each. `Reader`
reads many such sequences at once: each different one once, and where neighbours in order begin alike, their beginning
once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from kdray.cite.layout import Laid, Said
from kdray.models.likelihood import Continued, SharedPrefix

ROW = 2048  # tokens of a row of several sequences: its mask grows with their square
PASS = 8192  # tokens of a pass, with padding
ALIKE = 0.5  # the share of a sequence that its row must have already; with less its attention costs more than it saves

Sequenced = tuple[tuple[int, ...], int]  # token ids, and how many of the last of them are asked about
Cited = frozenset[int]  # places of sentences in the document, from 0


class Reader:
    """Log-probabilities by one model, of which it reads no sequence twice.

    `tokens` is how many it has read so far, a shared beginning once; `sequences` how many sequences these were, each of
    which would take a pass by itself.
    """

    def __init__(self, shared: SharedPrefix) -> None:
        self.shared, self.tokens = shared, 0
        self._known: dict[Sequenced, Tensor] = {}

    @property
    def sequences(self) -> int:
        return len(self._known)

    def __call__(self, asked: Sequence[Sequenced]) -> list[Tensor]:
        """[n] log-probabilities in nats of the n last tokens of each sequence, in float64."""
        for some in _passes(list(_rows(sorted(set(asked) - self._known.keys())))):
            questions = [_question(row) for row in some]
            for row, logs in zip(some, self.shared.log_probabilities(questions), strict=True):
                self._known |= dict(zip(row, logs, strict=True))
            self.tokens += sum(question.size for question in questions)
        return [self._known[each] for each in asked]


@dataclass(frozen=True)
class Reward:
    """Of a citation of one statement, in nats."""

    drop: float
    hold: float

    @property
    def total(self) -> float:
        """Equation 5.1."""
        return self.drop + self.hold


def rewards(
    read: Reader, laid: Laid, said: Sequence[Said], candidates: Sequence[Sequence[Cited]]
) -> list[list[Reward]]:
    """For every statement of an answer the rewards of the citations that might stand behind it."""
    wanted = {
        (i, kept): ((*laid.prompt(kept), *said[i].before, *said[i].ids), len(said[i].ids))
        for i, cited in enumerate(candidates)
        for one in cited
        for kept in (laid.all, one, laid.all - one)
    }
    log_p = {key: float(logs.sum()) for key, logs in zip(wanted, read(list(wanted.values())), strict=True)}
    return [
        [
            Reward(log_p[i, laid.all] - log_p[i, laid.all - one], log_p[i, one] - log_p[i, laid.all])
            for one in cited
        ]
        for i, cited in enumerate(candidates)
    ]  # fmt: skip


def _rows(ordered: Sequence[Sequenced]) -> Iterator[list[Sequenced]]:
    """Sequences in order, those together that begin alike."""
    row: list[Sequenced] = []
    for each in ordered:
        if row:
            context = _beginning([*row, each])
            size = context + sum(len(ids) - context for ids, _ in [*row, each])
            if size > ROW or context < ALIKE * len(each[0]):
                yield row
                row = []
        row.append(each)
    if row:
        yield row


def _beginning(row: Sequence[Sequenced]) -> int:
    """How many tokens the sequences of a row begin with alike and are not asked about; in order, the first and last
    tell.
    """
    pairs = zip(row[0][0], row[-1][0], strict=False)
    alike = next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(row[0][0]), len(row[-1][0])))
    return min(alike, *(len(ids) - last for ids, last in row))


def _question(row: Sequence[Sequenced]) -> Continued:
    context = _beginning(row)
    return Continued(row[0][0][:context], [ids[context:] for ids, _ in row], [last for _, last in row])


def _passes(rows: Sequence[list[Sequenced]]) -> Iterator[list[list[Sequenced]]]:
    """Rows of about the same length, as many as go into a pass."""
    some: list[list[Sequenced]] = []
    widest = 0
    for size, row in sorted(((_question(row).size, row) for row in rows), key=lambda pair: (-pair[0], pair[1])):
        if some and widest * (len(some) + 1) > PASS:
            yield some
            some = []
        widest = widest if some else size
        some.append(row)
    if some:
        yield some
