"""What an on-policy step costs beside word-level KD from kept soft labels, and what its time goes into.

A student and a teacher of one shape; half of each sequence of the data is a response, and a sampled one is at most as
long (`--new`). Every step is a whole optimiser step; one thread; process CPU time; all kinds take turns; minimum and
median over the rounds; shares are of wall time.

    hidden    word-level KD, soft labels on disk as hidden states (bfloat16)
    online    word-level KD, the teacher beside the student
    sampled   on-policy: the student samples, the teacher beside it is asked
    gkd       the same by TRL's GKDTrainer: what it samples by, and its loss (with --trl)

A random model hardly ever ends an answer before it is cut, so that these are the longest samples that there can be.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import GenerationConfig

from benchmarks.clocks import now
from benchmarks.train_step import Device, World, gkd_loss, plain_step
from kdray.distill.signals.online import OnlineTeacher
from kdray.train.loop import Loop

KINDS = ("hidden", "online", "sampled")
LAYERS = {"tiny": 4, "smollm2-135m": 30}
UNCOUNTED = 1  # steps before those that are counted


def make_loop(kind: str, world: World, new: int) -> Loop:
    if kind == "hidden":
        return world.loop(world.stored(kind))
    teacher = OnlineTeacher(world.model("teacher"), world.rows, world.device.dtype)
    if kind == "online":
        return world.loop(teacher)
    asked = SimpleNamespace(pad_token_id=0, eos_token_id=0)  # all that sampling asks of a tokenizer
    sampling = {"temperature": 1.0, "top_k": None, "max_new_tokens": new}
    return world.loop(teacher, tokenizer=asked, on_policy=1.0, sampling=sampling)


def sampled_by_trl(new: int) -> Callable[..., torch.Tensor]:
    """TRL's loss of responses that its own code samples to the same prompts."""
    from trl.experimental.gkd import GKDTrainer

    how = GenerationConfig(do_sample=True, temperature=1.0, top_k=0, max_new_tokens=new, eos_token_id=0, pad_token_id=0)

    def loss(student: Any, teacher: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        prompts = ids[:, : int((labels[0] != -100).int().argmax())]
        asked = {"prompts": prompts, "prompt_attention_mask": torch.ones_like(prompts)}
        sampled, _, theirs = GKDTrainer.generate_on_policy_outputs(student, asked, how)
        return gkd_loss(student, teacher, sampled, theirs)

    return loss


def measured(world: World, new: int, rounds: int, trl: bool) -> tuple[dict[str, list[float]], dict[str, float], float]:
    """Seconds of every step by kind, what the sampled ones went into in shares, and their mean length in tokens."""
    loops = {kind: make_loop(kind, world, new) for kind in KINDS}
    steps: dict[str, Callable[[], Any]] = {kind: partial(next, loop.steps()) for kind, loop in loops.items()}
    if trl:
        steps["gkd"] = plain_step(world, sampled_by_trl(new), with_teacher=True)
    taken: dict[str, list[float]] = defaultdict(list)
    spent, whole, lengths = dict.fromkeys(("sampling", "teacher"), 0.0), 0.0, []
    for i in range(UNCOUNTED + rounds):
        for kind, step in steps.items():
            gc.collect()
            begin, began = now("cpu"), time.perf_counter()
            metrics = step()
            if i < UNCOUNTED:
                continue
            taken[kind].append(now("cpu") - begin)
            if kind == "sampled":
                spent = {what: seconds + loops[kind].spent[what] for what, seconds in spent.items()}
                whole += time.perf_counter() - began
                lengths.append(metrics["sampled_length"])
    shares = {what: seconds / whole for what, seconds in spent.items()}
    return taken, shares | {"rest": 1 - sum(shares.values())}, statistics.fmean(lengths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(LAYERS), default="tiny", help="of both models (default: tiny)")
    parser.add_argument("--batch", type=int, default=4, help="sequences of a step (default: 4)")
    parser.add_argument("--length", type=int, default=128, help="tokens of a sequence (default: 128)")
    parser.add_argument("--new", type=int, help="tokens at which a sample is cut (default: half of the length)")
    parser.add_argument("--rounds", type=int, default=6, help="steps that are counted (default: 6)")
    parser.add_argument("--trl", action="store_true", help="time TRL's too: pip install --no-deps trl first")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON: ratios of medians, and shares")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = (given.shape, LAYERS[given.shape])
    vocabulary = 4000 if given.shape == "tiny" else 49_000
    device = Device(
        "cpu", model, model, vocabulary, torch.float32, given.batch, (given.length,), given.rounds, UNCOUNTED
    )
    new = given.new or given.length // 2
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), device, given.batch, given.length)
        taken, shares, length = measured(world, new, given.rounds, given.trl)
    middle = {kind: statistics.median(seconds) for kind, seconds in taken.items()}
    print(f"{given.shape}, batch {given.batch} x {given.length} tokens, samples of {length:.1f}, {given.rounds} rounds")
    print(f"{'step':10}{'min s':>9}{'median s':>10}{'/ hidden':>10}{'/ online':>10}")
    for kind, seconds in taken.items():
        over = [middle[kind] / middle[other] for other in ("hidden", "online")]
        print(f"{kind:10}{min(seconds):9.3f}{middle[kind]:10.3f}{over[0]:10.2f}{over[1]:10.2f}")
    print("of a sampled step: " + ", ".join(f"{what} {share:.0%}" for what, share in shares.items()))
    if given.json:
        ratios = {f"on_policy_over_{kind}": middle["sampled"] / middle[kind] for kind in ("hidden", "online")}
        if given.trl:
            ratios["gkd_over_on_policy"] = middle["gkd"] / middle["sampled"]
        summary = ratios | {f"{what}_share": share for what, share in shares.items()}
        print(json.dumps({name: round(value, 4) for name, value in summary.items()}))


if __name__ == "__main__":
    main()
