"""The benchmark of the loss at the output head compares ways to the same loss and gradients."""

from __future__ import annotations

import pytest
import torch

from benchmarks import head_loss
from benchmarks.head_loss import Measured, World, compare, make_way, over_ours

GROUPS = {"hard": ("hard", "hard-plain"), "soft": ("soft", "soft-plain")}


@pytest.fixture
def world() -> World:
    return World.make(60, 16, 20, torch.float32, "cpu")


@pytest.mark.parametrize("group", GROUPS)
def test_the_ways_of_a_group_make_one_loss_and_one_gradient(world: World, group: str) -> None:
    found = []
    for way in GROUPS[group]:
        step = make_way(way, world, compiled=False)
        step()
        loss = step()  # a second time: no gradient is added to that of the first
        grads = world.hidden.grad, world.head.linear.weight.grad
        assert None not in grads
        found.append((loss, *grads))
    ours, plain = found
    torch.testing.assert_close(ours[0], plain[0], rtol=1e-2, atol=0)
    for one, other in zip(ours[1:], plain[1:], strict=True):
        assert torch.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.999
        assert one.norm() / other.norm() == pytest.approx(1, abs=0.01)


def test_the_soft_group_has_a_teacher(world: World) -> None:
    hard, soft = (make_way(way, world, compiled=False)() for way in GROUPS)
    assert abs(hard - soft) > 0.1


def test_a_way_that_fails_leaves_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_loss, "liger", None)
    found = compare(["hard", "hard-liger", "hard-plain"], world, 1, compiled=False)
    assert list(found) == ["hard", "hard-plain"]
    assert len(found["hard"].seconds) == 1


def test_a_way_is_held_to_ours_with_the_same_labels() -> None:
    found = {
        "hard": Measured([1.0, 2.0, 9.0], 10, 0.0),
        "soft": Measured([4.0], 20, 0.0),
        "hard-plain": Measured([3.0], 40, 0.0),
        "kl-triton": Measured([2.0], 10, 0.0),
    }
    assert over_ours(found, "hard-plain") == (1.5, 4.0)
    assert over_ours(found, "kl-triton") == (0.5, 0.5)
