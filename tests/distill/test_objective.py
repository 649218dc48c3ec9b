"""The objective against an independent float64 reference, and its edge cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdray.distill import kd_loss
from kdray.distill.losses.cross_entropy import cross_entropy
from kdray.distill.objective import Objective
from tests.distill.reference import reference

V = 17


def make(shape=(3, 7), student_width=V, teacher_width=V, seed=0, scale=4.0):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(*shape, student_width, generator=generator) * scale
    teacher = torch.randn(*shape, teacher_width, generator=generator) * scale
    labels = torch.randint(0, min(student_width, teacher_width), shape, generator=generator)
    labels[:, :2] = -100  # the prompt
    return student, teacher, labels


def loss_and_gradient(student, teacher, labels, **kwargs):
    student = student.clone().requires_grad_()
    loss = kd_loss(student, teacher, labels, **kwargs)
    loss.backward()
    return loss.item(), student.grad.numpy()


def relative(a, b):
    return np.abs(np.asarray(a, np.float64) - b).max() / max(np.abs(b).max(), 1e-30)


@pytest.mark.parametrize("alpha", [0.0, 0.01, 1.0, 10.0])
@pytest.mark.parametrize(
    ("student_width", "teacher_width", "size"), [(V, V, V), (V + 5, V, V), (V, V + 8, V), (V + 3, V + 9, V - 2)]
)
def test_loss_and_gradient_equal_the_float64_reference(alpha, student_width, teacher_width, size):
    student, teacher, labels = make(student_width=student_width, teacher_width=teacher_width)
    labels[labels >= size] = size - 1
    loss, gradient = loss_and_gradient(student, teacher, labels, alpha=alpha, vocab_size=size)
    expected, expected_gradient = reference(student, teacher, labels, alpha, size)
    assert relative(loss, expected) < 1e-5
    assert relative(gradient, expected_gradient) < 1e-5


def test_without_a_vocabulary_size_the_smaller_width_counts():
    student, teacher, labels = make(student_width=V + 4, teacher_width=V)
    assert kd_loss(student, teacher, labels, alpha=1.0) == kd_loss(student, teacher, labels, alpha=1.0, vocab_size=V)


def test_columns_beyond_the_vocabulary_take_no_mass_and_no_gradient():
    student, teacher, labels = make(student_width=V + 4, teacher_width=V + 9)
    labels[labels >= V] = 0
    wild_student, wild_teacher = student.clone(), teacher.clone()
    wild_student[..., V:] = 50.0
    wild_teacher[..., V:] = 50.0
    loss, gradient = loss_and_gradient(wild_student, wild_teacher, labels, alpha=1.0, vocab_size=V)
    assert loss == pytest.approx(reference(student, teacher, labels, 1.0, V)[0], rel=1e-5)
    assert not gradient[..., V:].any()


def test_the_mean_is_over_all_tokens_not_over_the_means_of_sequences():
    student, teacher, labels = make(shape=(2, 9))
    labels[0, 3:] = -100  # one counted token against seven
    loss, _ = loss_and_gradient(student, teacher, labels, alpha=1.0)
    assert loss == pytest.approx(reference(student, teacher, labels, 1.0, V)[0], rel=1e-5)
    per_sequence = [
        kd_loss(student[i : i + 1], teacher[i : i + 1], labels[i : i + 1], alpha=1.0).item() for i in (0, 1)
    ]
    assert abs(loss - sum(per_sequence) / 2) > 1e-3


def test_one_token_responses_are_counted_once_and_at_the_query_before_them():
    student, teacher, labels = make(shape=(2, 4))
    labels[:] = -100
    labels[:, 3] = 5
    loss, gradient = loss_and_gradient(student, teacher, labels, alpha=0.5)
    assert loss == pytest.approx(reference(student, teacher, labels, 0.5, V)[0], rel=1e-5)
    assert gradient[:, 2].any()
    assert not gradient[:, [0, 1, 3]].any()


def test_an_all_masked_row_adds_nothing_and_a_batch_of_them_is_zero():
    student, teacher, labels = make()
    alone = kd_loss(student[:2], teacher[:2], labels[:2], alpha=1.0)
    labels[2] = -100
    assert torch.equal(kd_loss(student, teacher, labels, alpha=1.0), alone)
    loss, gradient = loss_and_gradient(student, teacher, torch.full_like(labels, -100), alpha=1.0)
    assert loss == 0
    assert not gradient.any()


def test_bfloat16_logits_are_widened_before_the_softmax():
    student, teacher, labels = make(scale=8.0)
    half = kd_loss(student.bfloat16(), teacher.bfloat16(), labels, alpha=1.0)
    exact = reference(student.bfloat16().float(), teacher.bfloat16().float(), labels, 1.0, V)[0]
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(exact, rel=1e-5)


def test_float64_gradients_pass_gradcheck():
    student, teacher, labels = (t.double() if t.is_floating_point() else t for t in make(shape=(1, 4)))
    assert torch.autograd.gradcheck(lambda z: kd_loss(z, teacher, labels, alpha=0.7), student.requires_grad_())


def test_no_gradient_flows_to_the_teacher():
    student, teacher, labels = make()
    teacher.requires_grad_()
    kd_loss(student.requires_grad_(), teacher, labels, alpha=1.0).backward()
    assert teacher.grad is None or not teacher.grad.any()


def test_at_equality_the_soft_term_is_the_teachers_entropy_with_no_gradient():
    logits = torch.randn(5, V, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    loss = cross_entropy(logits, logits.detach())
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    assert torch.allclose(loss, entropy)
    loss.sum().backward()
    assert logits.grad.abs().max() < 1e-12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": V + 1}, "vocab_size"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"alpha": -0.1}, "negative"),
        ({"vocab_size": 3}, "outside the vocabulary"),
    ],
)
def test_what_cannot_be_meant_is_refused(change, message):
    student, teacher, labels = make()
    with pytest.raises(ValueError, match=message):
        kd_loss(student, teacher, labels, **({"alpha": 1.0} | change))


def test_shapes_that_do_not_fit_and_negative_labels_are_refused():
    student, teacher, labels = make()
    with pytest.raises(ValueError, match="shapes"):
        kd_loss(student[:, :-1], teacher, labels, alpha=1.0)
    labels[0, 4] = -1
    with pytest.raises(ValueError, match="label -1"):
        kd_loss(student, teacher, labels, alpha=1.0)


def test_alpha_above_zero_needs_a_teacher():
    with pytest.raises(ValueError, match="teacher"):
        Objective(0.5, V)(torch.zeros(2, V), None, torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("weighting", ["sum", "ratio", "convex"])
@pytest.mark.parametrize(("alpha", "smoothing"), [(0.0, 0.1), (0.3, 0.0), (0.3, 0.1), (1.0, 0.9)])
def test_weights_and_smoothing_are_the_references(weighting, alpha, smoothing):
    student, teacher, labels = make()
    counted = labels[:, 1:] != -100
    ours, theirs = (logits[:, :-1][counted].double() for logits in (student, teacher))
    objective = Objective(alpha, V, weighting=weighting, smoothing=smoothing)
    sums = objective(ours.requires_grad_(), theirs, labels[:, 1:][counted])
    loss, gradient = reference(student, teacher, labels, alpha, V, weighting, smoothing)
    assert relative(float(sums.total) / len(ours), loss) < 1e-12
    (ours_gradient,) = torch.autograd.grad(sums.total / len(ours), ours)
    assert relative(ours_gradient, gradient[:, :-1][counted.numpy()]) < 1e-12
    assert float(sums.total) == pytest.approx(float(objective.total(sums.hard, sums.soft, sums.uniform)), rel=1e-12)


def test_smoothing_is_pytorchs():
    student, _, labels = make()
    counted = labels[:, 1:] != -100
    ours, targets = student[:, :-1][counted], labels[:, 1:][counted]
    expected = torch.nn.functional.cross_entropy(ours, targets, label_smoothing=0.2, reduction="sum")
    assert Objective(0.0, V, smoothing=0.2)(ours, None, targets).total.item() == pytest.approx(
        expected.item(), rel=1e-6
    )


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
def test_the_three_weightings_point_the_same_way_and_clipping_tells_them_apart(alpha):
    student, teacher, labels = make()
    counted = labels[:, 1:] != -100
    theirs, targets = teacher[:, :-1][counted], labels[:, 1:][counted]

    def gradient(given, weighting, clip=None):
        ours = student[:, :-1][counted].clone().requires_grad_()
        Objective(given, V, weighting=weighting)(ours, theirs, targets).total.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_([ours], clip)
        return ours.grad

    whole = gradient(alpha, "sum")
    assert torch.allclose(gradient(alpha, "ratio") * (1 + alpha), whole, rtol=1e-4, atol=1e-6)
    assert torch.allclose(gradient(alpha / (1 + alpha), "convex") * (1 + alpha), whole, rtol=1e-4, atol=1e-6)
    clip = float(gradient(alpha, "ratio").norm())  # bites in `sum` alone
    assert torch.allclose(gradient(alpha, "ratio", clip), gradient(alpha, "ratio"), rtol=1e-4)
    assert float(gradient(alpha, "sum", clip).norm()) == pytest.approx(clip, rel=1e-4)
    assert float(whole.norm()) == pytest.approx(clip * (1 + alpha), rel=1e-4)
