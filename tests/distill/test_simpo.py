"""SimPO's loss and gradient against its definition in float64, and against TRL's where that is installed."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdray.data.collate import Batch
from kdray.distill import simpo as module
from kdray.distill.simpo import SimPO

VOCABULARY, COLUMNS = 11, 13  # the last columns are no tokens


def given(seed: int = 0) -> tuple[Tensor, Tensor]:
    """[4, 7, V] logits and [4, 7] labels of two pairs, -100 where nothing is predicted; the rows are of unequal
    length.
    """
    dice = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(4, 7, COLUMNS, generator=dice, dtype=torch.float64)
    labels = torch.randint(0, VOCABULARY, (4, 7), generator=dice)
    for row, (begin, end) in enumerate([(2, 7), (3, 5), (1, 2), (2, 6)]):
        labels[row, :begin] = labels[row, end:] = -100
    return logits, labels


def reference(logits: np.ndarray, labels: np.ndarray, beta: float, gamma: float) -> tuple[float, np.ndarray]:
    """The sum over pairs of the loss, and its gradient, from the definition alone."""
    z = logits[:, :, :VOCABULARY]
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    means, counts = [], []
    for row in range(len(labels)):
        at = [t for t in range(1, labels.shape[1]) if labels[row, t] != -100]
        means.append(sum(math.log(p[row, t - 1, labels[row, t]]) for t in at) / len(at))
        counts.append(len(at))
    total, gradient = 0.0, np.zeros_like(logits)
    for pair in range(len(labels) // 2):
        x = beta * (means[2 * pair] - means[2 * pair + 1]) - gamma
        total += math.log1p(math.exp(-x))
        slope = -1 / (1 + math.exp(x))  # of -log sigmoid
        for row, sign in ((2 * pair, 1), (2 * pair + 1, -1)):
            for t in range(1, labels.shape[1]):
                if labels[row, t] != -100:
                    of_token = -p[row, t - 1]
                    of_token[labels[row, t]] += 1
                    gradient[row, t - 1, :VOCABULARY] = slope * beta * sign / counts[row] * of_token
    return total, gradient


def batch_of(labels: Tensor) -> Batch:
    found = [(r, t - 1) for r in range(len(labels)) for t in range(1, labels.shape[1]) if labels[r, t] != -100]
    positions = torch.tensor(found)
    wanted = labels[positions[:, 0], positions[:, 1] + 1]
    return Batch(torch.zeros_like(labels), torch.ones_like(labels), positions, wanted)


@pytest.mark.parametrize("chunk", [512, 3])
@pytest.mark.parametrize(("beta", "gamma"), [(2.5, 1.4), (2.0, 0.0), (10.0, 3.0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_loss_and_gradient_are_those_of_the_definition(
    beta: float, gamma: float, dtype: torch.dtype, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    logits, labels = given()
    expected, gradient = reference(logits.numpy(), labels.numpy(), beta, gamma)
    leaf, batch = logits.to(dtype).requires_grad_(), batch_of(labels)
    hidden = leaf[batch.positions[:, 0], batch.positions[:, 1]]
    head: Any = nn.Identity()
    total, (loss, margin, won) = SimPO(beta, gamma, VOCABULARY).sums(head, hidden, batch, scale=0.5)
    total.backward()
    assert leaf.grad is not None
    relative = 1e-12 if dtype == torch.float64 else 1e-5
    assert float(loss) == pytest.approx(expected, rel=relative)
    assert float(total.detach()) == pytest.approx(expected / 2, rel=relative)
    np.testing.assert_allclose(2 * leaf.grad.double().numpy(), gradient, rtol=0, atol=relative * np.abs(gradient).max())
    assert (leaf.grad[:, :, VOCABULARY:] == 0).all()
    means = SimPO(beta, gamma, VOCABULARY).means(head, hidden, batch)
    assert float(margin) == pytest.approx(float((means[0::2] - means[1::2]).sum()), rel=1e-5)
    assert int(won) == int((means[0::2] > means[1::2]).sum())


def test_it_is_what_trl_computes() -> None:
    pytest.importorskip("trl", reason="pip install --no-deps trl")
    from trl.experimental.cpo import CPOTrainer  # pyright: ignore[reportMissingImports]

    logits, labels = given(1)
    own, batch = logits[:, :, :VOCABULARY], batch_of(labels)
    simpo: Any = SimPO(2.5, 1.4, VOCABULARY)
    means = simpo.means(nn.Identity(), own[batch.positions[:, 0], batch.positions[:, 1]], batch)
    theirs = CPOTrainer.get_batch_logps(own, labels, average_log_prob=True)
    torch.testing.assert_close(means, theirs, rtol=1e-12, atol=0)
    accelerator = SimpleNamespace(device=torch.device("cpu"))
    given_to: Any = SimpleNamespace(
        loss_type="simpo", beta=2.5, simpo_gamma=1.4, alpha=0.0, label_smoothing=0.0, accelerator=accelerator
    )
    losses = CPOTrainer.cpo_loss(given_to, theirs[0::2], theirs[1::2])[0]
    torch.testing.assert_close(simpo(means[0::2], means[1::2]), losses, rtol=1e-12, atol=0)
