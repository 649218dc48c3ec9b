"""Training on pairs: the loop's steps against plain ones, whatever the micro-batches, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kdray.cite.pairs import Pair
from kdray.models.head import ResponseModel
from kdray.models.load import load_folder
from kdray.train.checkpoints import load_checkpoint, save_checkpoint
from kdray.train.engines import Ranks
from kdray.train.loop import DivergedError
from kdray.train.optimiser import adamw
from kdray.train.pairs import PairLoop, PairRows
from kdray.train.settings import Settings
from tests.tiny import write_model

SETTINGS = Settings(
    lr=1e-3,
    batch=3,
    alpha=0.0,
    seed=1,
    unit="epochs",
    length=2.0,
    schedule={"name": "constant", "params": {}},
    warmup=0.0,
    weight_decay=0.0,
    clip=1.0,
    dtype="float32",
    packing=False,
    simpo={"beta": 2.5, "gamma": 1.4},
)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("pairs") / "student", layers=2, seed=2)


def pairs_of(count: int) -> list[Pair]:
    """Of unequal lengths; the chosen response ends with a low number, the rejected one with a high one."""
    dice = np.random.default_rng(0)

    def ids(size: int, low: int, high: int) -> tuple[int, ...]:
        return tuple(int(token) for token in dice.integers(low, high, size))

    return [Pair(ids(4 + i, 10, 200), ids(2 + i % 3, 10, 60), ids(5 - i % 3, 140, 200)) for i in range(count)]


def make_loop(student: Path, settings: Settings = SETTINGS, micro_batch: int | None = None, count: int = 6) -> PairLoop:
    model, tokenizer = load_folder(student)
    made = ResponseModel(model)
    rows = PairRows(pairs_of(count))
    return PairLoop(
        made, rows, settings, signal=None, vocab_size=len(tokenizer), ranks=Ranks(), micro_batch=micro_batch
    )


def test_pairs_are_rows_of_which_the_last_are_kept_out() -> None:
    pairs = pairs_of(21)
    rows = PairRows(pairs)
    assert rows.train.tolist() == list(range(0, 38, 2))
    assert rows.heldout.tolist() == [38, 40]
    assert rows.input_ids(3) == [*pairs[1].prompt, *pairs[1].rejected]
    assert rows.response_lengths.tolist() == [len(ids) for pair in pairs for ids in (pair.chosen, pair.rejected)]
    assert PairRows(pairs[:9]).train.tolist() == list(range(0, 18, 2))


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [None, 2, 1])
def test_a_step_is_that_of_a_plain_loop_over_pairs(student: Path, micro_batch: int | None) -> None:
    loop = make_loop(student, micro_batch=micro_batch)
    chosen = loop.order.batch_at(0)
    assert sorted(np.concatenate([loop.order.batch_at(0), loop.order.batch_at(1)]).tolist()) == [0, 2, 4, 6, 8, 10]
    twin, tokenizer = load_folder(student)
    optimiser = adamw(twin, SETTINGS)
    losses = []
    for row in chosen:
        means = []
        for each in (row, row + 1):
            ids, begin = loop.rows.input_ids(each), int(loop.rows.prompt_lengths[each])
            logits = twin(torch.tensor([ids])).logits[0, begin - 1 : -1, : len(tokenizer)]
            means.append(logits.log_softmax(-1)[torch.arange(len(ids) - begin), ids[begin:]].mean())
        losses.append(torch.log1p(torch.exp(-(2.5 * (means[0] - means[1]) - 1.4))))
    expected = torch.stack(losses).mean()
    expected.backward()
    norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
    optimiser.step()
    metrics = next(iter(loop.steps()))
    assert metrics["loss"] == pytest.approx(float(expected.detach()), rel=1e-5)
    assert metrics["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
    for name, value in twin.state_dict().items():
        assert (value - loop.model.whole.state_dict()[name]).abs().max() < 1e-4, name


def test_a_worker_without_a_pair_adds_nothing(student: Path) -> None:
    loop = make_loop(student)
    total, terms = loop._of_pairs([])
    total.backward()
    assert (float(total.detach()), terms.tolist()) == (0.0, [0.0, 0.0, 0.0])
    gradients = [parameter.grad for parameter in loop.model.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


@pytest.mark.slow
def test_chosen_responses_become_likelier_also_of_pairs_that_were_kept_out(student: Path) -> None:
    loop = make_loop(student, replace(SETTINGS, length=3.0), count=60)
    before = loop.heldout(1)
    assert before == pytest.approx(loop.heldout(2), rel=1e-5)
    history = list(loop.steps())
    assert len(history) == loop.total_steps == 54
    after = loop.heldout(4)
    assert history[-1]["loss"] < history[0]["loss"] / 2
    assert history[-1]["won"] > 0.5
    assert after["heldout_loss"] < before["heldout_loss"]
    assert after["heldout_margin"] > before["heldout_margin"]


@pytest.mark.slow
def test_it_goes_on_from_a_checkpoint_bit_for_bit(student: Path, tmp_path: Path) -> None:
    straight, first, second = (make_loop(student) for _ in range(3))
    list(straight.steps())
    steps = first.steps()
    next(steps)
    next(steps)
    save_checkpoint(first, tmp_path / "checkpoint")
    load_checkpoint(second, tmp_path / "checkpoint")
    list(second.steps())
    assert second.history == straight.history
    for name, value in straight.model.whole.state_dict().items():
        assert torch.equal(value, second.model.whole.state_dict()[name]), name


def test_a_loss_that_is_no_number_ends_it(student: Path) -> None:
    loop = make_loop(student)
    with torch.no_grad():
        loop.model.head.linear.weight[20] = torch.nan
    with pytest.raises(DivergedError, match=r"at step 1 with lr 0\.001"):
        next(iter(loop.steps()))
