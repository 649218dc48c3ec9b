"""What the loss at the output head costs, forward and backward: ours beside full logits, and beside Liger's.

Hidden states of N response tokens and a head of V x d, as of Llama-2-7B, Llama-3.1-8B and Qwen2.5-7B (V as the head is
padded), a teacher's states and head of the same shape. Products are in bfloat16, under autocast; the student's weights
and states are in float32, as our training keeps them, or in bfloat16 with --weights bfloat16; the teacher's in
bfloat16. Time: minimum and median over the rounds, with the gradients of states and weight made anew in each. Memory:
the peak of what is allocated beyond weights and states, gradients included (on a GPU only).

    hard        ours (`kdray.distill.fused`), labels alone
    hard-plain  cross-entropy of full logits, by autograd
    hard-liger  LigerFusedLinearCrossEntropyLoss
    soft        ours, half labels and half forward KL from the teacher's hidden states
    soft-plain  the same from full logits of both models, by autograd
    soft-liger  LigerFusedLinearJSDLoss with beta = 0: the same, chunk by chunk (with --compile as it is by default:
                compiled, which takes minutes over all shapes)
    kl-triton   LigerFusedLinearJSD with beta = 0: the KL alone

Liger's run on a GPU, where liger-kernel is installed. A way that fails is left out. The losses are printed: those of a
group are equal up to rounding.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.clocks import GpuMemory, now
from kdray.distill.fused import fused_sums
from kdray.distill.labels import HiddenLabels
from kdray.distill.objective import Objective
from kdray.models.head import Head

SHAPES = {"cuda": ((32_000, 4096), (128_256, 4096), (152_064, 3584)), "cpu": ((1000, 64),)}
TOKENS = {"cuda": (1024, 4096), "cpu": (300,)}
WAYS = ("hard", "hard-plain", "hard-liger", "soft", "soft-plain", "soft-liger", "kl-triton")
UNCOUNTED = 3  # rounds before those that are counted


@dataclass(frozen=True)
class World:
    """[N, d] states and a head of both models, and [N] labels."""

    hidden: Tensor
    head: Head
    theirs: HiddenLabels
    labels: Tensor

    @staticmethod
    def make(vocabulary: int, width: int, tokens: int, weights: torch.dtype, device: str) -> World:
        torch.manual_seed(0)

        def made(rows: int, dtype: torch.dtype) -> Tensor:
            return torch.randn(rows, width, device=device, dtype=dtype)

        heads = []
        for dtype in (weights, torch.bfloat16):
            linear = nn.Linear(width, vocabulary, bias=False, device="meta")
            linear.weight = nn.Parameter(made(vocabulary, dtype) * width**-0.5)
            heads.append(Head(linear))
        labels = torch.randint(0, vocabulary, (tokens,), device=device)
        theirs = HiddenLabels(made(tokens, torch.bfloat16), heads[1].requires_grad_(False))
        return World(made(tokens, weights).requires_grad_(), heads[0], theirs, labels)


def ours(world: World, *, soft: bool) -> Tensor:
    vocabulary = world.head.linear.out_features
    objective = Objective(0.5 if soft else 0.0, vocabulary, "forward_kl", weighting="convex")
    signal, scale = world.theirs if soft else None, 1 / len(world.labels)
    return fused_sums(objective, world.head, world.hidden, world.labels, signal, scale).total


def plain(world: World, *, soft: bool) -> Tensor:
    logits = world.head(world.hidden).float()
    hard = F.cross_entropy(logits, world.labels)
    if not soft:
        return hard
    with torch.no_grad():
        theirs = world.theirs.head(world.theirs.states).float().log_softmax(-1)
    divergence = F.kl_div(logits.log_softmax(-1), theirs, reduction="batchmean", log_target=True)
    return 0.5 * hard + 0.5 * divergence


def liger(world: World, *, way: str, compiled: bool) -> Tensor:
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss, LigerFusedLinearJSD

    weight, theirs = world.head.linear.weight, world.theirs
    if way == "hard-liger":
        return LigerFusedLinearCrossEntropyLoss()(weight, world.hidden, world.labels)
    both = (world.hidden, weight, theirs.states, theirs.head.linear.weight, world.labels)
    if way == "kl-triton":
        return LigerFusedLinearJSD(jsd_beta=0.0)(*both)
    return LigerFusedLinearJSDLoss(beta=0.0, compiled=compiled)(*both)


def make_way(way: str, world: World, compiled: bool) -> Callable[[], Tensor]:
    """A function that takes the loss and makes its gradients; returns the loss."""
    group, _, kind = way.partition("-")

    def step() -> Tensor:
        world.hidden.grad = world.head.linear.weight.grad = None
        with torch.autocast(world.hidden.device.type, torch.bfloat16):
            if not kind:
                loss = ours(world, soft=group == "soft")
            elif kind == "plain":
                loss = plain(world, soft=group == "soft")
            else:
                loss = liger(world, way=way, compiled=compiled)
        loss.backward()
        return loss.detach()

    return step


@dataclass(frozen=True)
class Measured:
    seconds: list[float]
    peak: int  # bytes; 0 on a CPU
    loss: float


def measure(way: str, world: World, rounds: int, compiled: bool) -> Measured:
    device = world.hidden.device.type
    world.hidden.grad = world.head.linear.weight.grad = None
    memory = GpuMemory() if device == "cuda" else None
    step, seconds = make_way(way, world, compiled), []
    loss = step()
    for i in range(UNCOUNTED - 1 + rounds):
        begin = now(device)
        step()
        if i >= UNCOUNTED - 1:
            seconds.append(now(device) - begin)
    return Measured(seconds, memory.peak() if memory else 0, float(loss))


def compare(ways: list[str], world: World, rounds: int, compiled: bool) -> dict[str, Measured]:
    """Without the ways that fail."""
    found = {}
    for way in ways:
        try:
            found[way] = measure(way, world, rounds, compiled)
        except Exception:  # noqa: BLE001 - the others are still wanted
            traceback.print_exc()
    return found


def report(found: dict[str, Measured]) -> None:
    print(f"{'way':12}{'min ms':>9}{'median ms':>11}{'/ ours':>8}{'peak GB':>9}{'/ ours':>8}{'loss':>10}")
    for way, one in found.items():
        time, memory = over_ours(found, way)
        print(
            f"{way:12}{min(one.seconds) * 1e3:9.2f}{statistics.median(one.seconds) * 1e3:11.2f}{time:8.2f}"
            f"{one.peak / 1e9:9.2f}{memory:8.2f}{one.loss:10.4f}"
        )
    sys.stdout.flush()


def over_ours(found: dict[str, Measured], way: str) -> tuple[float, float]:
    """Median time and peak memory over those of ours with the same labels; nan where there are none."""
    own, one = found.get("hard" if way.startswith("hard") else "soft"), found[way]
    if own is None:
        return float("nan"), float("nan")
    time = statistics.median(one.seconds) / statistics.median(own.seconds)
    return time, one.peak / own.peak if own.peak else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--vocabularies", type=int, nargs="+", help="only the shapes with these")
    parser.add_argument("--tokens", type=int, nargs="+", help="response tokens (default: 1024 4096, on a CPU 300)")
    parser.add_argument("--weights", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, help="default: all; on a CPU those without Liger")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--compile", action="store_true", help="soft-liger compiled")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON: others over ours")
    arguments = parser.parse_args()
    device = arguments.device
    ways = arguments.ways or [way for way in WAYS if device == "cuda" or way.endswith(("hard", "soft", "plain"))]
    summary: dict[str, float] = {}
    for vocabulary, width in SHAPES[device]:
        if arguments.vocabularies and vocabulary not in arguments.vocabularies:
            continue
        for weights in arguments.weights:
            for tokens in arguments.tokens or TOKENS[device]:
                world = World.make(vocabulary, width, tokens, getattr(torch, weights), device)
                print(f"\n{tokens} tokens, V = {vocabulary}, d = {width}, weights in {weights}, {device}")
                found = compare(ways, world, arguments.rounds, arguments.compile)
                report(found)
                for way in found.keys() - {"hard", "soft"}:
                    name = f"{way.replace('-', '_')}_{vocabulary}_{tokens}_{weights}"
                    summary[f"time_{name}"], summary[f"mem_{name}"] = over_ours(found, way)
    if arguments.json:
        print(json.dumps({name: round(value, 3) for name, value in sorted(summary.items()) if value == value}))


if __name__ == "__main__":
    main()
