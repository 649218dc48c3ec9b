"""An ensemble's distribution is the weighted average of its teachers' probabilities, in the loss as on its own."""

from __future__ import annotations

import pytest
import torch

from kdray.distill.ensemble import Ensemble
from kdray.distill.fused import fused_sums
from kdray.distill.labels import LogitLabels
from kdray.distill.objective import Objective
from kdray.models.head import Head

WEIGHTS = (0.7, 0.3)
N, V, D = 11, 23, 6


class Given:
    """A signal of fixed logits, wider than the tokenizer by some columns that must not count."""

    temperature = 1.0

    def __init__(self, seed: int, width: int) -> None:
        self.width = width
        self.logits = 3 * torch.randn(N, width, generator=torch.Generator().manual_seed(seed))

    def read(self, rows):
        return LogitLabels(self.logits)


def average(signals):
    return sum(w * s.logits[:, :V].double().softmax(-1) for w, s in zip(WEIGHTS, signals, strict=True))


@pytest.fixture
def signals():
    return [Given(0, V + 4), Given(1, V + 2)]


def test_its_chunks_are_the_average_of_probabilities(signals):
    labels = Ensemble(signals, WEIGHTS).read([0])
    assert len(labels) == N
    found = labels.chunk(2, 9, torch.empty(7, V)).double().softmax(-1)
    assert torch.allclose(found, average(signals)[2:9], atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_loss_and_its_gradient_are_those_of_the_average(signals, temperature):
    generator = torch.Generator().manual_seed(2)
    states, weight = torch.randn(N, D, generator=generator), torch.randn(V, D, generator=generator)
    targets = torch.randint(V, (N,), generator=generator)
    linear = torch.nn.Linear(D, V, bias=False)
    linear.weight.data.copy_(weight)
    ours = states.clone().requires_grad_()
    objective = Objective(alpha=0.5, vocab_size=V, temperature=temperature)
    sums = fused_sums(objective, Head(linear, 1.0, None), ours, targets, Ensemble(signals, WEIGHTS).read([0]))
    sums.total.backward()

    reference = states.double().requires_grad_()
    logits = reference @ weight.double().T
    teacher = (average(signals).log() / temperature).softmax(-1)
    soft = -(teacher * (logits / temperature).log_softmax(-1)).sum() * temperature**2
    hard = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    (hard + 0.5 * soft).backward()
    assert float(sums.total) == pytest.approx(float(hard + 0.5 * soft), rel=1e-5)
    assert torch.allclose(ours.grad.double(), reference.grad, rtol=1e-4, atol=1e-5)
