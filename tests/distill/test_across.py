"""Soft labels across tokenizers against their definition, written out token by token in numpy float64."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from kdray.artifacts.aligned import write_aligned
from kdray.artifacts.rows import SCHEMA, Rows, rows_writer, write_split
from kdray.artifacts.source import AcrossTokens
from kdray.distill.across import Across, SomeLabels, sums_of_some
from kdray.distill.fused import fused_sums
from kdray.distill.labels import HiddenLabels, LogitLabels, SoftLabels, Sparse
from kdray.distill.objective import Objective
from kdray.models.head import Head

V, W, D = 9, 12, 8  # tokens of the student and of the teacher
OURS, THEIRS = [3, 2, 4], [2, 4, 3]  # response tokens of each row
PAIRS = [([0, 2], [0, 1]), ([], []), ([0, 1, 3], [0, 2, 1])]
FIRST = [0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 8, -1]  # three of the teacher's tokens begin with 3, one with nothing of ours
ORDER = [2, 0, 1]


class Given:
    """A signal that has its labels in memory, row by row."""

    temperature, width = 1.0, None

    def __init__(self, rows: list[SoftLabels]) -> None:
        self.rows = rows

    def read(self, rows: Sequence[int]) -> SoftLabels:
        logits = [self.rows[row] for row in rows]
        return LogitLabels(torch.cat([some.logits for some in logits if isinstance(some, LogitLabels)]))


def write_rows(folder: Path, lengths: list[int]) -> Rows:
    folder.mkdir(parents=True)
    rows = [
        {
            "source_row": i,
            "input_ids": [0] * (1 + length),
            "n_prompt": 1,
            "instruction": "",
            "context": "",
            "response": "",
        }
        for i, length in enumerate(lengths)
    ]
    with rows_writer(folder) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
    write_split(folder, [], [])
    return Rows(folder)


@pytest.fixture
def teacher() -> list[Tensor]:
    """[n, W + 2] logits of each row's response tokens; the last two are padding of the head."""
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(length, W + 2, generator=generator, dtype=torch.float64) * 2 for length in THEIRS]


@pytest.fixture
def student() -> tuple[Tensor, Head, Tensor]:
    """[N, D] states of the rows in `ORDER`, a head, and labels."""
    torch.manual_seed(5)
    linear = nn.Linear(D, V + 1, bias=False, dtype=torch.float64)
    nn.init.normal_(linear.weight)
    hidden = torch.randn(sum(OURS), D, dtype=torch.float64, requires_grad=True)
    return hidden, Head(linear), torch.randint(0, V, (sum(OURS),))


def across(
    tmp_path: Path, teacher: list[Tensor], align: str, *, translated: bool, first: list[int] | None = None
) -> Across:
    ours, theirs = write_rows(tmp_path / "ours", OURS), write_rows(tmp_path / "theirs", THEIRS)
    write_aligned(tmp_path / "theirs", PAIRS, first or FIRST)
    how = AcrossTokens(str(tmp_path / "theirs"), align, translated)  # type: ignore[arg-type]
    return Across(Given([LogitLabels(logits) for logits in teacher]), ours, theirs, how, "cpu")


def by_definition(student: np.ndarray, labels: np.ndarray, teacher: list[Tensor], align: str, loss: str, alpha: float):
    """(hard, soft) sums: every token of the rows in `ORDER` by itself."""
    hard = soft = 0.0
    place = 0
    for row in ORDER:
        pairs = (
            dict(zip(*PAIRS[row], strict=True))
            if align == "text"
            else {i: i for i in range(min(OURS[row], THEIRS[row]))}
        )
        for i in range(OURS[row]):
            s = np.exp(student[place])[:V] / np.exp(student[place])[:V].sum()
            hard -= np.log(s[labels[place]])
            if i in pairs:
                t = np.exp(teacher[row][pairs[i]].numpy()[:W])
                t /= t.sum()
                if loss == "uld":
                    padded = np.concatenate([np.sort(s)[::-1], np.zeros(W - V)])
                    soft += np.abs(padded - np.sort(t)[::-1]).sum()
                else:
                    mapped = np.zeros(V)
                    for id, to in enumerate(FIRST):
                        if to >= 0:
                            mapped[to] += t[id]
                    mapped /= mapped.sum()
                    soft -= (mapped * np.log(s)).sum()
            place += 1
    return hard, soft


@pytest.mark.parametrize(("align", "loss"), [("text", "cross_entropy"), ("text", "uld"), ("position", "uld")])
@pytest.mark.parametrize("weighting", ["sum", "ratio"])
def test_it_is_the_definition(tmp_path: Path, teacher, student, align: str, loss: str, weighting: str) -> None:
    hidden, head, labels = student
    objective = Objective(0.7, V, loss, weighting=weighting)
    soft = across(tmp_path, teacher, align, translated=loss != "uld").read(ORDER)
    assert isinstance(soft, SomeLabels)
    sums = sums_of_some(objective, head, hidden, labels, soft, scale=0.5)
    expected = by_definition(head(hidden).detach().numpy(), labels.numpy(), teacher, align, loss, 0.7)
    assert (float(sums.hard), float(sums.soft)) == pytest.approx(expected, rel=1e-9)
    total = objective.hard_weight * expected[0] + objective.soft_weight * expected[1]
    assert float(sums.total.detach()) == pytest.approx(0.5 * total, rel=1e-9)


@pytest.mark.parametrize(("align", "loss"), [("text", "cross_entropy"), ("text", "uld"), ("position", "uld")])
def test_its_gradient_is_that_of_the_sums(tmp_path: Path, teacher, student, align: str, loss: str) -> None:
    hidden, head, labels = student
    soft = across(tmp_path, teacher, align, translated=loss != "uld").read(ORDER)

    def total(states: Tensor) -> Tensor:
        return sums_of_some(Objective(0.7, V, loss, weighting="ratio"), head, states, labels, soft).total

    (gradient,) = torch.autograd.grad(total(hidden), hidden)
    for place in range(len(hidden)):
        step = torch.zeros_like(hidden)
        step[place] = 1e-6 * torch.randn(D, dtype=torch.float64)
        with torch.no_grad():
            slope = float(total(hidden + step) - total(hidden - step)) / 2
        assert slope == pytest.approx(float((gradient * step).sum()), rel=1e-5, abs=1e-12)


def test_positions_are_counted_from_the_begin_of_the_text(tmp_path: Path, teacher) -> None:
    """An encoder-decoder's tokenizer may put a token before every response, which the teacher's has not."""
    ours, theirs = write_rows(tmp_path / "ours", OURS), write_rows(tmp_path / "theirs", THEIRS)
    write_aligned(tmp_path / "theirs", PAIRS, FIRST, begin=1)
    how = AcrossTokens(str(tmp_path / "theirs"), "position", translated=False)
    soft = Across(Given([LogitLabels(logits) for logits in teacher]), ours, theirs, how, "cpu").read(ORDER)
    assert soft.at.tolist() == [1, 2, 3, 5, 6, 8]  # of rows of 4, 3 and 2 tokens, whose first have none
    expected = torch.cat([teacher[2], teacher[0], teacher[1][:1]])
    assert torch.equal(soft.labels.chunk(0, 6), expected[:, :W])


def test_with_equal_tokens_it_is_the_loss_of_the_teachers_own_labels(tmp_path: Path, student) -> None:
    """Every pair there, every token its own first: one tokenizer."""
    hidden, head, labels = student
    logits = [torch.randn(length, V + 3, dtype=torch.float64) for length in OURS]
    rows = write_rows(tmp_path / "ours", OURS)
    write_aligned(tmp_path / "ours", [(list(range(n)), list(range(n))) for n in OURS], list(range(V)))
    how = AcrossTokens(str(tmp_path / "ours"), "text", translated=True)
    soft = Across(Given([LogitLabels(some) for some in logits]), rows, rows, how, "cpu").read(ORDER)
    for loss in ("cross_entropy", "forward_kl", "reverse_kl", "jsd", "total_variation", "adaptive"):
        objective = Objective(2.0, V, loss)
        ours = sums_of_some(objective, head, hidden, labels, soft)
        plain = fused_sums(objective, head, hidden, labels, LogitLabels(torch.cat([logits[row] for row in ORDER])))
        gradients = [torch.autograd.grad(sums.total, [hidden, head.linear.weight]) for sums in (ours, plain)]
        assert float(ours.total.detach()) == pytest.approx(float(plain.total.detach()), rel=1e-9)
        for a, b in zip(*gradients, strict=True):
            assert (a - b).norm() <= 1e-9 * b.norm()


def test_entries_of_a_distribution_go_to_the_same_tokens(tmp_path: Path, teacher, student) -> None:
    """All entries kept, so that the sparse labels are the whole distribution."""
    hidden, head, labels = student
    dense = across(tmp_path, teacher, "text", translated=True).read(ORDER)
    signal = across(tmp_path / "again", teacher, "text", translated=True)

    class AsEntries(Given):
        def read(self, rows: Sequence[int]) -> SoftLabels:
            logits = torch.cat([teacher[row] for row in rows])[:, :W]
            return Sparse(torch.arange(W).expand(len(logits), -1), logits.softmax(1), torch.zeros(len(logits)).double())

    signal.signal = AsEntries([])
    sparse = signal.read(ORDER)
    totals = [float(sums_of_some(Objective(0.7, V), head, hidden, labels, soft).soft) for soft in (dense, sparse)]
    assert totals[0] == pytest.approx(totals[1], rel=1e-9)


def test_hidden_states_are_picked_before_they_are_logits(tmp_path: Path) -> None:
    labels = HiddenLabels(torch.randn(5, D), Head(nn.Linear(D, W, bias=False)))
    picked = labels.pick(torch.tensor([3, 1]))
    torch.testing.assert_close(picked.chunk(0, 2), labels.chunk(0, 5)[[3, 1]])


def test_no_pair_at_all_leaves_the_hard_labels(tmp_path: Path, teacher, student) -> None:
    hidden, head, labels = student
    soft = across(tmp_path, teacher, "text", translated=True).read([1])
    own, few = hidden[: OURS[1]], labels[: OURS[1]]
    sums = sums_of_some(Objective(1.0, V, weighting="ratio"), head, own, few, soft)
    hard = fused_sums(Objective(0.0, V), head, own, few, None)
    assert float(sums.soft) == 0
    assert float(sums.total.detach()) == pytest.approx(0.5 * float(hard.total.detach()), rel=1e-12)
