"""What every loss must hold, found by itself: a new file in the folder is tested as soon as it is there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdray.distill.labels import Sparse
from kdray.distill.objective import Objective
from kdray.spec import declare
from kdray.spec.components import components, declared, load, module_of
from kdray.spec.parameters import REQUIRED

V = 11
LOSSES = list(components(declare.Loss))
SPARSE = [name for name in LOSSES if declared(declare.Loss, name).sparse]
DIVERGENCES = [name for name in LOSSES if name not in ("cross_entropy", "adaptive")]


def numpy_losses(s, t, beta):
    """Each loss from its definition, on probabilities [N, V] in float64."""
    kl = lambda a, b: (a * np.log(a / b)).sum(-1)  # noqa: E731
    m = beta * t + (1 - beta) * s
    entropy = -(t * np.log(t)).sum(-1)
    return {
        "adaptive": np.minimum(entropy, 1) * -(t * np.log(s)).sum(-1),
        "cross_entropy": -(t * np.log(s)).sum(-1),
        "forward_kl": kl(t, s),
        "reverse_kl": kl(s, t),
        "jsd": beta * kl(t, m) + (1 - beta) * kl(s, m),
        "total_variation": 0.5 * np.abs(t - s).sum(-1),
        "uld": np.abs(np.sort(t) - np.sort(s)).sum(-1),
    }


def logits(seed, scale=3.0, count=6):
    return torch.randn(count, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def loss_of(name):
    declared = components(declare.Loss)[name]
    assert all(parameter.default is not REQUIRED for parameter in declared.parameters.values())
    return load(declare.Loss, name)


def test_every_loss_has_a_reference():
    assert set(LOSSES) == set(numpy_losses(np.ones((1, 2)) / 2, np.ones((1, 2)) / 2, 0.5))


@pytest.mark.parametrize("name", LOSSES)
def test_it_equals_its_definition_token_by_token(name):
    student, teacher = logits(1), logits(2)
    expected = numpy_losses(student.softmax(-1).numpy(), teacher.softmax(-1).numpy(), 0.5)[name]
    assert loss_of(name)(student, teacher).numpy() == pytest.approx(expected, rel=1e-10)
    assert loss_of(name)(student.float(), teacher.float()).numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("beta", [0.1, 0.9])
def test_jsd_takes_beta_as_the_teachers_share(beta):
    student, teacher = logits(1), logits(2)
    expected = numpy_losses(student.softmax(-1).numpy(), teacher.softmax(-1).numpy(), beta)["jsd"]
    assert loss_of("jsd")(student, teacher, beta=beta).numpy() == pytest.approx(expected, rel=1e-10)


def test_adaptive_smoothing_leaves_certain_tokens_alone_and_takes_unsure_ones_in_full():
    student, teacher = logits(1), torch.stack([torch.zeros(V), torch.tensor([60.0] + [0.0] * (V - 1))]).double()
    loss = load(declare.Loss, "adaptive")(student[:2], teacher, nats=2.0)
    plain = load(declare.Loss, "cross_entropy")(student[:2], teacher)
    assert loss[0].item() == pytest.approx(plain[0].item())  # ln 11 nats
    assert loss[1].item() < 1e-20


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_divergence_is_zero_at_equality_and_else_positive(name):
    same, other = logits(1), logits(2)
    assert loss_of(name)(same, same + 5.0).abs().max() < 1e-12  # logits are the same up to a constant
    assert (loss_of(name)(same, other) > 1e-3).all()


@pytest.mark.parametrize("name", LOSSES)
def test_its_gradient_passes_gradcheck(name):
    teacher = logits(2)
    assert torch.autograd.gradcheck(lambda z: loss_of(name)(z, teacher), logits(1).requires_grad_())


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits_stay_finite(name):
    student, teacher = logits(1, scale=300.0).float().requires_grad_(), logits(2, scale=300.0).float()
    loss = loss_of(name)(student, teacher)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("name", SPARSE)
def test_all_entries_given_sparsely_are_the_dense_loss_and_gradient(name):
    student, teacher = logits(1).requires_grad_(), logits(2)
    weights, ids = teacher.softmax(-1).sort(descending=True)
    entropy = torch.distributions.Categorical(logits=teacher).entropy()
    module = module_of(declare.Loss, name)
    sparse, dense = module.sparse(student, Sparse(ids, weights, entropy)), loss_of(name)(student, teacher)
    assert torch.allclose(sparse, dense)
    a, b = (torch.autograd.grad(loss.sum(), student)[0] for loss in (sparse, dense))
    assert torch.allclose(a, b)


@pytest.mark.parametrize("name", LOSSES)
def test_only_a_sparse_loss_says_so(name):
    module = module_of(declare.Loss, name)
    assert hasattr(module, "sparse") == declared(declare.Loss, name).sparse


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_divides_both_logits_and_multiplies_by_its_square(name, temperature):
    student, teacher = logits(1), logits(2)
    labels = torch.zeros(len(student), dtype=torch.long)
    soft = Objective(1.0, V, name, temperature=temperature)(student, teacher, labels).soft
    expected = temperature**2 * loss_of(name)(student / temperature, teacher / temperature).sum()
    assert soft.item() == pytest.approx(expected.item(), rel=1e-12)


def test_the_gradient_keeps_its_size_at_a_high_temperature():
    norms = []
    for temperature in (50.0, 100.0):
        student = logits(1).requires_grad_()
        Objective(1.0, V, "forward_kl", temperature=temperature)(
            student, logits(2), torch.zeros(6, dtype=torch.long)
        ).total.backward()
        norms.append(student.grad.norm().item())
    assert norms[0] == pytest.approx(norms[1], rel=0.05)


def test_convex_weights_are_those_of_minillm():
    student, teacher, labels = logits(1), logits(2), torch.arange(6)
    sums = Objective(0.25, V, weighting="convex")(student, teacher, labels)
    assert sums.total.item() == pytest.approx(0.75 * sums.hard.item() + 0.25 * sums.soft.item())
    paper = Objective(1 / 3, V)(student, teacher, labels)  # r = alpha / (1 + alpha), scaled by 1 + alpha
    assert paper.total.item() == pytest.approx(sums.total.item() * (1 + 1 / 3))
