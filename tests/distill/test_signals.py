"""Every stored form through the disk: what comes back, how exact it is, and what it takes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kdray.artifacts.soft_labels import write_labels
from kdray.distill.ensemble import Ensemble
from kdray.distill.fused import fused_sums
from kdray.distill.labels import HiddenLabels, Sparse, Teacher, vocabulary
from kdray.distill.objective import Objective
from kdray.distill.signals import make_form
from kdray.distill.stored import Stored, read_head, write_head
from kdray.models.head import Head
from kdray.spec import declare
from kdray.spec.components import components, declared

D, V, ROWS = 16, 120, 6
LENGTHS = [3, 1, 7, 4, 20, 2]
FORMS = {
    "hidden float32": {"name": "hidden", "params": {"dtype": "float32"}},
    "hidden bfloat16": {"name": "hidden", "params": {"dtype": "bfloat16"}},
    "hidden float16": {"name": "hidden", "params": {"dtype": "float16"}},
    "hidden int8": {"name": "hidden", "params": {"dtype": "int8"}},
    "logits bfloat16": {"name": "logits", "params": {"dtype": "bfloat16"}},
    "topk all": {"name": "topk", "params": {"k": V}},
}
# cosine of the KD gradient with the exact one, and relative error
EXACTNESS = {
    "hidden float32": (1 - 1e-9, 1e-5),
    "hidden bfloat16": (0.9999, 1e-2),
    "hidden float16": (0.999998, 2e-3),
    "hidden int8": (0.999, 5e-2),
    "logits bfloat16": (0.9999, 1.5e-2),
    "topk all": (0.999999, 2e-3),
}


def make_head(width, seed):
    torch.manual_seed(seed)
    linear = nn.Linear(D, width, bias=False)
    nn.init.normal_(linear.weight, std=0.7)
    return Head(linear).requires_grad_(False)


@pytest.fixture
def teacher():
    return Teacher(make_head(V + 8, seed=1), V, 1.0)


@pytest.fixture
def states():
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(length, D, generator=generator) for length in LENGTHS]


def keep(folder, form, teacher, states, order=range(ROWS)):
    """The rows in two parts on disk, read back."""
    made = make_form(form)
    for part, some in enumerate((list(order)[:4], list(order)[4:])):
        kept = [made.keep(states[row], teacher, torch.Generator().manual_seed(row)) for row in some]
        write_labels(folder, part, some, kept)
    if declared(declare.Form, form["name"]).head:
        write_head(teacher.head, folder)
    return Stored(folder, made, teacher.temperature)


def gradient(labels, states, alpha=1.0):
    """Of the soft term alone, with respect to the hidden states of a student near the teacher."""
    torch.manual_seed(9)
    hidden = (torch.cat(states) + 0.3 * torch.randn(len(torch.cat(states)), D)).requires_grad_()
    objective = Objective(alpha, V, weighting="convex")
    fused_sums(
        objective, make_head(V + 8, seed=1), hidden, torch.zeros(len(hidden), dtype=torch.long), labels
    ).total.backward()
    return hidden.grad


@pytest.mark.parametrize(("name", "width"), [("hidden", V + 8), ("logits", V), ("topk", None), ("sampled", None)])
def test_what_is_kept_says_of_how_many_tokens_its_logits_are(tmp_path, teacher, states, name, width):
    stored = keep(tmp_path, {"name": name, "params": {}}, teacher, states)
    assert stored.width == width
    student = make_head(V - 1, seed=2)
    assert vocabulary(V + 1, student, stored) == V - 1
    if width is not None:
        assert Ensemble([stored, stored], [0.5, 0.5]).width == width
        assert vocabulary(V + 9, make_head(V + 20, seed=2), stored) == width


@pytest.mark.parametrize("kind", FORMS)
def test_the_gradient_from_disk_is_the_exact_one_up_to_rounding(tmp_path, teacher, states, kind):
    stored = keep(tmp_path, FORMS[kind], teacher, states)
    order = [4, 0, 5, 2]
    ours = gradient(stored.read(order), [states[row] for row in order])
    exact = gradient(
        HiddenLabels(torch.cat([states[row] for row in order]), teacher.head), [states[row] for row in order]
    )
    cosine, error = EXACTNESS[kind]
    assert torch.nn.functional.cosine_similarity(ours.double().flatten(), exact.double().flatten(), 0) >= cosine
    assert (ours - exact).norm() / exact.norm() <= error


@pytest.mark.parametrize("name", [name for name, form in components(declare.Form).items() if form.declared.kept])
def test_rows_come_back_one_by_one_and_in_any_order(tmp_path, teacher, states, name):
    stored = keep(tmp_path, {"name": name, "params": {}}, teacher, states, order=[5, 3, 1, 0, 2, 4])
    whole = stored.read([2, 5, 0])
    ends = [0, LENGTHS[2], LENGTHS[2] + LENGTHS[5], LENGTHS[2] + LENGTHS[5] + LENGTHS[0]]
    assert len(whole) == ends[-1]
    for i, row in enumerate([2, 5, 0]):
        ours, alone = whole.chunk(ends[i], ends[i + 1]), stored.read([row]).chunk(0, LENGTHS[row])
        if isinstance(ours, Sparse):
            assert torch.equal(ours.ids, alone.ids)
            assert torch.equal(ours.weights, alone.weights)
        else:
            assert torch.allclose(ours, alone, atol=1e-5)
    assert len(stored.read([])) == 0


@pytest.mark.slow
def test_draws_from_the_tail_are_unbiased_and_never_repeat_the_top(teacher, states):
    form, exact = (
        make_form({"name": "sampled", "params": {"top": 4, "draws": 3}}),
        teacher.log_probabilities(states[0]).exp(),
    )
    total, dice = torch.zeros_like(exact), torch.Generator().manual_seed(0)
    repeats = 4000
    for _ in range(repeats):
        kept = form.keep(states[0], teacher, dice)
        labels = form.labels(kept, None)
        assert not (labels.ids[:, :4, None] == labels.ids[:, None, 4:]).any()
        assert torch.allclose(labels.weights.sum(1), torch.ones(len(exact)))
        total.scatter_add_(1, labels.ids, labels.weights)
    tail = (exact.sum(1) - exact.topk(4)[0].sum(1)).max()
    hit = tail / 3 / repeats  # what one draw adds
    noise = 4 * (exact * hit).sqrt() + 4 * hit + 1e-3 * exact  # 4 sigma, rare hits, and half precision of the top
    assert ((total / repeats - exact).abs() <= noise).all()


def test_sampled_beats_topk_of_the_same_size_over_many_tokens(tmp_path, teacher):
    generator = torch.Generator().manual_seed(4)
    states = [0.5 * torch.randn(400, D, generator=generator)]
    exact = gradient(HiddenLabels(states[0], teacher.head), states)

    def error(form):
        kept = make_form(form).keep(states[0], teacher, torch.Generator().manual_seed(1))
        labels = make_form(form).labels(kept, None)
        estimated = gradient(labels, states)
        return ((estimated - exact).T @ states[0]).norm() / (exact.T @ states[0]).norm()

    assert error({"name": "sampled", "params": {"top": 16, "draws": 16}}) < 0.5 * error(
        {"name": "topk", "params": {"k": 32}}
    )


@pytest.mark.parametrize("temperature", [0.5, 3.0])
@pytest.mark.parametrize("name", ["sampled", "topk"])
def test_what_is_kept_is_at_the_temperature(teacher, states, name, temperature):
    teacher = Teacher(teacher.head, V, temperature)
    form = make_form({"name": name, "params": {}})
    kept = form.keep(states[4], teacher, torch.Generator())
    exact = (teacher.logits(states[4]) / temperature).softmax(-1)
    best = exact.topk(form.entries if name == "topk" else form.top)[0]
    assert torch.allclose(
        kept["log_probs"].float().exp(), best, rtol=1e-2
    )  # half precision of a log-probability near -16
    assert torch.allclose(kept["tail"], 1 - best.sum(1), atol=1e-5)


def test_columns_beyond_the_vocabulary_are_never_kept(teacher, states):
    with torch.no_grad():
        teacher.head.linear.weight[V:] = 10 * teacher.head.linear.weight[:8]
    for name in ("sampled", "topk", "logits"):
        kept = make_form({"name": name, "params": {}}).keep(states[4], teacher, torch.Generator())
        assert kept["logits"].shape[1] == V if name == "logits" else int(kept["ids"].long().max()) < V


@pytest.mark.parametrize(
    ("name", "bytes_per_token"),
    [("hidden", 2 * D), ("sampled", 64 * 2 + 32 * 2 + 4 + 4), ("topk", 64 * 4 + 4), ("logits", 2 * V)],
)
def test_a_token_takes_so_many_bytes(teacher, states, name, bytes_per_token):
    kept = make_form({"name": name, "params": {}}).keep(states[4], teacher, torch.Generator())
    assert sum(tensor.nbytes for tensor in kept.values()) == bytes_per_token * LENGTHS[4]


def test_a_kept_tensors_mean_is_over_all_tokens(tmp_path, teacher, states):
    stored = keep(tmp_path, {"name": "topk", "params": {"k": 4}}, teacher, states)
    best = teacher.log_probabilities(torch.cat(states)).exp().topk(4)[0].sum(1)
    assert stored.mean("tail") == pytest.approx(float((1 - best).mean()), rel=1e-4)
    assert stored.mean("hidden") is None


def test_a_head_with_bias_scale_and_softcap_comes_back(tmp_path):
    linear = nn.Linear(D, V)
    head = Head(linear, 0.5, 3.0)
    write_head(head, tmp_path)
    states = torch.randn(5, D)
    assert torch.equal(read_head(tmp_path)(states), head(states))
