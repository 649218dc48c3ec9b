"""The fused objective against the plain one on full logits: sums and gradients, for every loss and kind of head."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

from kdray.distill import fused
from kdray.distill.fused import fused_sums
from kdray.distill.labels import HiddenLabels, LogitLabels, Sparse
from kdray.distill.objective import Objective
from kdray.models.head import Head
from kdray.spec import declare
from kdray.spec.components import components

N, D, V = 23, 8, 13
HEADS = {
    "plain": {},
    "bias": {"bias": True},
    "scale": {"scale": 0.3},
    "softcap": {"softcap": 2.0},
    "all": {"bias": True, "scale": 2.0, "softcap": 5.0},
}


def make_head(bias=False, scale=1.0, softcap=None, width=V + 3, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    linear = nn.Linear(D, width, bias=bias, dtype=dtype)
    nn.init.normal_(linear.weight)
    return Head(linear, scale, softcap)


def make_inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(N, D, generator=generator).to(dtype).requires_grad_()
    teacher = HiddenLabels(
        torch.randn(N, D, generator=generator).to(dtype), make_head(width=V + 6, seed=5, dtype=dtype)
    )
    return hidden, teacher, torch.randint(0, V, (N,), generator=generator)


def sparse_labels():
    generator = torch.Generator().manual_seed(2)
    weights = torch.rand(N, 6, generator=generator, dtype=torch.float64)
    ids = torch.randint(0, V, (N, 6), generator=generator)  # some twice
    return Sparse(ids, weights / weights.sum(1, keepdim=True), torch.rand(N, generator=generator, dtype=torch.float64))


def gradients(loss, hidden, head):
    return torch.autograd.grad(loss, [hidden, *head.parameters()])


def assert_close(ours, theirs, tolerance=1e-12):
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= tolerance * b.norm()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(fused, "CHUNK", 5)  # so that N is several chunks and a rest


@pytest.mark.parametrize("name", list(components(declare.Loss)))
@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize(
    ("alpha", "weighting", "temperature", "smoothing"),
    [
        (0.0, "sum", 1.0, 0.0),
        (0.0, "ratio", 1.0, 0.1),
        (0.7, "sum", 1.0, 0.0),
        (0.7, "ratio", 1.0, 0.2),
        (0.7, "convex", 1.0, 0.0),
        (3.0, "sum", 2.0, 0.3),
    ],
)
def test_it_is_the_plain_objective(name, kind, alpha, weighting, temperature, smoothing):
    head, (hidden, teacher, labels) = make_head(**HEADS[kind]), make_inputs()
    objective = Objective(alpha, V, name, {}, temperature, weighting, smoothing)
    ours = fused_sums(objective, head, hidden, labels, teacher, scale=0.1)
    plain = objective(head(hidden), teacher.chunk(0, N), labels)
    assert ours.total.item() == pytest.approx(plain.total.item() * 0.1, rel=1e-12)
    assert ours.hard.item() == pytest.approx(plain.hard.item(), rel=1e-12)
    assert ours.soft.item() == pytest.approx(plain.soft.item(), rel=1e-12)
    assert ours.uniform.item() == pytest.approx(plain.uniform.item(), rel=1e-12)
    assert_close(gradients(ours.total, hidden, head), gradients(plain.total * 0.1, hidden, head))


@pytest.mark.parametrize("name", ["cross_entropy", "forward_kl"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_sparse_labels_too_even_with_an_id_twice(name, temperature):
    head, (hidden, _, labels) = make_head(), make_inputs()
    objective = Objective(0.7, V, name, {}, temperature)
    ours = fused_sums(objective, head, hidden, labels, sparse_labels())
    plain = objective(head(hidden), sparse_labels(), labels)
    assert ours.total.item() == pytest.approx(plain.total.item(), rel=1e-12)
    assert_close(gradients(ours.total, hidden, head), gradients(plain.total, hidden, head))


def test_tokens_that_only_the_teacher_has_share_in_no_mass():
    head, (hidden, _, labels) = make_head(width=V), make_inputs()
    given = sparse_labels()
    ids, weights = given.ids.clone(), given.weights.clone()
    ids[::2, 3] = V  # the student has V tokens, 0 to V - 1
    weights[::2, 3] = 0.0
    renormalised = Sparse(given.ids, weights / weights.sum(1, keepdim=True), given.entropy)
    objective = Objective(0.7, V)
    ours = fused_sums(objective, head, hidden, labels, Sparse(ids, given.weights, given.entropy))
    theirs = objective(head(hidden), renormalised, labels)
    assert ours.total.item() == pytest.approx(theirs.total.item(), rel=1e-12)
    assert_close(gradients(ours.total, hidden, head), gradients(theirs.total, hidden, head))


@pytest.mark.parametrize("name", list(components(declare.Loss)))
def test_no_token_is_no_loss_and_a_zero_gradient(name):
    head, (hidden, teacher, labels) = make_head(bias=True), make_inputs()
    sums = fused_sums(
        Objective(1.0, V, name), head, hidden[:0], labels[:0], HiddenLabels(teacher.states[:0], teacher.head)
    )
    assert sums.total == 0
    assert all(not grad.any() for grad in gradients(sums.total, hidden, head))


def test_a_factor_on_the_loss_reaches_the_gradients():
    head, (hidden, teacher, labels) = make_head(), make_inputs()
    objective = Objective(0.5, V)
    once = gradients(fused_sums(objective, head, hidden, labels, teacher).total, hidden, head)
    twice = gradients(fused_sums(objective, head, hidden, labels, teacher).total * -2, hidden, head)
    assert_close(twice, [-2 * grad for grad in once])


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_without_gradients_none_is_made(monkeypatch, temperature):
    head, (hidden, teacher, labels) = make_head(), make_inputs()
    objective = Objective(0.7, V, "forward_kl", temperature=temperature)
    expected = fused_sums(objective, head, hidden, labels, teacher)
    monkeypatch.setattr(fused, "add_product", lambda *_: pytest.fail("a gradient was made"))
    with torch.no_grad():
        found = fused_sums(objective, head, hidden, labels, teacher)
    assert (found.total, found.hard, found.soft) == (expected.total, expected.hard, expected.soft)


def test_a_head_tied_to_the_embeddings_gets_both_gradients():
    (_, teacher, labels), embedding = make_inputs(), nn.Embedding(V + 3, D, dtype=torch.float64)
    head = make_head()
    head.linear.weight = embedding.weight
    ids = torch.arange(N) % V
    objective = Objective(0.5, V)
    (ours,) = torch.autograd.grad(fused_sums(objective, head, embedding(ids), labels, teacher).total, embedding.weight)
    (plain,) = torch.autograd.grad(objective(head(embedding(ids)), teacher.chunk(0, N), labels).total, embedding.weight)
    assert_close([ours], [plain])


def test_a_frozen_head_gets_none():
    head, (hidden, teacher, labels) = make_head().requires_grad_(False), make_inputs()
    fused_sums(Objective(0.5, V), head, hidden, labels, teacher).total.backward()
    assert head.linear.weight.grad is None
    assert hidden.grad.any()


def test_the_teachers_kept_logits_are_left_as_they_are():
    head, (hidden, teacher, labels) = make_head(), make_inputs()
    kept = LogitLabels(teacher.chunk(0, N).clone())
    before = kept.logits.clone()
    fused_sums(Objective(0.5, V), head, hidden, labels, kept)
    assert torch.equal(kept.logits, before)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_bfloat16_products_stay_near_with_a_float32_weight(alpha):
    head, (hidden, teacher, labels) = make_head(dtype=torch.float32), make_inputs(torch.float32)
    objective = Objective(alpha, V)
    with torch.autocast("cpu", torch.bfloat16):
        ours = fused_sums(objective, head, hidden, labels, teacher)
    grads = gradients(ours.total, hidden, head)
    plain = objective(head(hidden), teacher.chunk(0, N), labels)
    assert [grad.dtype for grad in grads] == [torch.float32, torch.float32]
    assert ours.total.item() == pytest.approx(plain.total.item(), rel=2e-2)
    assert_close(grads, gradients(plain.total, hidden, head), 2e-2)


def test_the_largest_tensor_is_one_chunk_of_logits(monkeypatch):
    made = []
    mm = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b, **options: made.append(mm(a, b, **options)) or made[-1])
    head, (hidden, teacher, labels) = make_head(), make_inputs()
    fused_sums(Objective(0.5, V), head, hidden, labels, teacher)
    assert made
    assert max(len(product) for product in made) == fused.CHUNK


def test_the_gradients_are_handed_over_not_copied(monkeypatch):
    made, zeros_like = [], torch.zeros_like
    monkeypatch.setattr(torch, "zeros_like", lambda like: made.append(zeros_like(like)) or made[-1])
    head, (hidden, teacher, labels) = make_head(), make_inputs()
    total = fused_sums(Objective(0.5, V), head, hidden, labels, teacher).total
    places = [tensor.data_ptr() for tensor in made]
    made.clear()
    total.backward()
    assert [hidden.grad.data_ptr(), head.linear.weight.grad.data_ptr()] == places


def test_the_gradients_are_made_for_one_backward_pass():
    head, (hidden, teacher, labels) = make_head(), make_inputs()
    total = fused_sums(Objective(0.5, V), head, hidden, labels, teacher).total
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="a second time"):
        total.backward()


@pytest.mark.parametrize("factor", [1.0, -2.0])
@pytest.mark.parametrize(
    ("name", "temperature", "sparse"),
    [
        *((name, 1.0, False) for name in components(declare.Loss)),
        ("cross_entropy", 1.0, True),
        ("forward_kl", 2.0, False),
        ("forward_kl", 2.0, True),
    ],
)
def test_nothing_is_asked_of_a_gpu_before_the_step(monkeypatch, name, temperature, sparse, factor):
    """On the `meta` device, whose tensors have no numbers: to read one is an error there, and a wait on a GPU."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    head, (hidden, teacher, labels) = make_head(**HEADS["all"]).to("meta"), make_inputs()
    hidden, labels = hidden.detach().to("meta").requires_grad_(), labels.to("meta")
    theirs = sparse_labels() if sparse else teacher
    soft = (
        Sparse(*(getattr(theirs, part).to("meta") for part in ("ids", "weights", "entropy")))
        if sparse
        else HiddenLabels(theirs.states.to("meta"), theirs.head.to("meta"))
    )
    sums = fused_sums(Objective(0.5, V, name, {}, temperature, smoothing=0.1), head, hidden, labels, soft)
    (sums.total * factor).backward()
    assert hidden.grad.shape == hidden.shape
    assert head.linear.weight.grad.shape == head.linear.weight.shape


@pytest.mark.parametrize(
    ("device", "vocabulary", "by_hand", "tokens"),
    [
        ("cpu", 128_256, True, 256),
        ("cuda", 128_256, True, 2048),
        ("cuda", 32_000, True, 8192),
        ("cuda", 128_256, False, 512),
        ("cuda", 2_000_000, True, 256),
    ],
)
def test_a_chunk_is_a_gigabyte_of_logits_on_a_gpu(monkeypatch, device, vocabulary, by_hand, tokens):
    monkeypatch.setattr(fused, "CHUNK", 256)
    assert fused.chunk_of(torch.device(device), 4 * vocabulary, by_hand=by_hand) == tokens


def test_soft_labels_of_other_tokens_are_refused():
    head, (hidden, teacher, labels) = make_head(), make_inputs()
    with pytest.raises(ValueError, match="23 tokens and soft labels of 22"):
        fused_sums(Objective(0.5, V), head, hidden, labels, HiddenLabels(teacher.states[1:], teacher.head))
    with pytest.raises(ValueError, match="soft labels of 0"):
        fused_sums(Objective(0.5, V), head, hidden, labels, None)
