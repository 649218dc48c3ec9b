"""Attention over packed rows and the fused loss, against what they stand for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from kdray.distill.fused import fused_sums
from kdray.distill.labels import HiddenLabels, Sparse
from kdray.distill.objective import Objective
from kdray.models.head import Head, ResponseModel
from kdray.models.packed import NAME, enable_packing
from tests.gpu import NEEDS_GPU
from tests.gpu.conftest import Figure

pytestmark = NEEDS_GPU
LENGTHS = (5, 300, 1, 64, 129)


def llama(heads: int, groups: int, width: int) -> ResponseModel:
    """Two layers in float32, with weights large enough that attention is far from even."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=500,
        hidden_size=heads * width,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=width,
        initializer_range=0.1,
    )
    return ResponseModel(LlamaForCausalLM(config).to("cuda"))


def states_and_gradient(model: ResponseModel, packed: bool, autocast: bool) -> tuple[Tensor, Tensor]:
    """The hidden states of all tokens of all sequences, and the gradient of a weighted sum of them."""
    dice = torch.Generator("cuda").manual_seed(1)
    some = [torch.randint(0, 500, (n,), device="cuda", generator=dice) for n in LENGTHS]
    weights = torch.randn(sum(LENGTHS), model.whole.config.hidden_size, device="cuda", generator=dice)
    model.zero_grad()
    with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
        if packed:
            ids = torch.cat(some)[None]
            places = torch.cat([torch.arange(n, device="cuda") for n in LENGTHS])[None]
            states = model.hidden(ids, torch.ones_like(ids), torch.ones_like(ids).nonzero(), places)
        else:
            parts = [(ids[None], torch.ones_like(ids[None])) for ids in some]
            states = torch.cat([model.hidden(ids, mask, mask.nonzero()) for ids, mask in parts])
    (states.float() * weights).sum().backward()
    grads = [p.grad.flatten() for p in model.backbone.parameters() if p.grad is not None]
    return states.detach().float(), torch.cat(grads).float()


def off(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("heads", "groups", "width"), [(4, 4, 64), (4, 2, 64), (4, 1, 128), (3, 3, 128)])
def test_packed_attention_is_that_of_each_sequence_alone(
    heads: int, groups: int, width: int, checkpointing: bool, figure: Figure
) -> None:
    model = llama(heads, groups, width)
    alone = {autocast: states_and_gradient(model, packed=False, autocast=autocast) for autocast in (False, True)}
    enable_packing(model.backbone, torch.bfloat16)
    assert model.backbone.config._attn_implementation == NAME
    if checkpointing:
        model.whole.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
    name = f"packed {heads}/{groups}x{width}{' checkpointed' if checkpointing else ''}"
    for autocast, limit in ((False, 1e-5), (True, 2e-2)):
        (expected, gradient), (ours, slope) = (
            alone[autocast],
            states_and_gradient(model, packed=True, autocast=autocast),
        )
        figure(f"{name} {'bf16' if autocast else 'fp32'} states off", off(ours, expected), at_most=limit)
        cosine = torch.nn.functional.cosine_similarity(slope.double(), gradient.double(), dim=0)
        figure(f"{name} {'bf16' if autocast else 'fp32'} gradient cosine", float(cosine), at_least=0.999)


FORMS = ("hard", "smoothed", "hidden", "sparse", "autograd")


@pytest.mark.parametrize("vocabulary", [32_000, 128_256, 151_665])
def test_the_fused_loss_is_the_plain_one_in_float64(vocabulary: int, figure: Figure) -> None:
    """For every form of labels, any number of tokens, and an odd vocabulary."""
    worst = {torch.float32: 0.0, torch.bfloat16: 0.0}
    for count in (0, 1, 255, 257, 1000):
        for form in FORMS:
            for dtype in worst:
                worst[dtype] = max(worst[dtype], fused_off(vocabulary, count, form, dtype))
    figure(f"fused loss V={vocabulary} fp32 off", worst[torch.float32], at_most=1e-5)
    figure(f"fused loss V={vocabulary} bf16 off", worst[torch.bfloat16], at_most=2e-2)


def fused_off(vocabulary: int, count: int, form: str, dtype: torch.dtype) -> float:
    """The largest relative error of the loss and of its gradients with respect to hidden states and head."""
    size = 64
    dice = torch.Generator("cuda").manual_seed(count)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=dice, device="cuda")

    head, teacher = (Head(torch.nn.Linear(size, vocabulary, bias=False, device="cuda")) for _ in range(2))
    for one in (head, teacher):
        one.linear.weight.data.copy_(random(vocabulary, size).bfloat16() / 4)
    hidden, theirs = random(count, size).bfloat16().float(), random(count, size).bfloat16().float()
    labels = torch.randint(0, vocabulary, (count,), generator=dice, device="cuda")
    ids = torch.randint(0, vocabulary, (count, 8), generator=dice, device="cuda")
    weights = random(count, 8).abs()
    sparse = Sparse(ids, weights / weights.sum(1, keepdim=True), random(count))
    objective = Objective(
        0.0 if form in ("hard", "smoothed") else 0.7,
        vocabulary,
        "jsd" if form == "autograd" else "cross_entropy",
        {},
        1.0,
        "sum",
        0.1 if form == "smoothed" else 0.0,
    )

    def labels_in(kind: torch.dtype) -> HiddenLabels | Sparse | None:
        if form == "sparse":
            return Sparse(sparse.ids, sparse.weights.to(kind), sparse.entropy.to(kind))
        return HiddenLabels(theirs.to(kind), teacher.as_type(kind)) if objective.alpha else None

    leaf = hidden.clone().requires_grad_()
    soft = labels_in(torch.float32 if form == "sparse" else dtype)
    with torch.autocast("cuda", torch.bfloat16, enabled=dtype == torch.bfloat16):
        ours = fused_sums(objective, head, leaf, labels, soft, scale=1 / max(count, 1))
    gradients = torch.autograd.grad(ours.total, [leaf, head.linear.weight])
    exact = torch.nn.Linear(size, vocabulary, bias=False, device="cuda", dtype=torch.float64)
    exact.weight.data.copy_(head.linear.weight.data)
    double = hidden.double().requires_grad_()
    wanted = labels_in(torch.float64)
    chunk = None if wanted is None else wanted.chunk(0, count, None)
    total = objective(Head(exact)(double), chunk, labels).total / max(count, 1)
    expected = torch.autograd.grad(total, [double, exact.weight])
    pairs = [(ours.total, total), *zip(gradients, expected, strict=True)]
    return max(float((a - b).double().norm() / b.double().norm().clamp(min=1e-30)) for a, b in pairs)
