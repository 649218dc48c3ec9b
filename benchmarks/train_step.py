"""What a distillation step costs beside a plain fine-tuning step, in time and in memory.

A student of 10 of SmolLM2's 30 layers, a teacher of all 30, batch 4, half of each sequence a response. Every step
is a whole optimiser step: reading rows and soft labels, forward, backward, clipping, AdamW. One thread; process CPU
time; all kinds of step take turns; minimum and median over the rounds. Memory is the peak RSS of a process that
does nothing but the one kind of step.

    sft       our loop without a teacher: response tokens only, fused loss
    smoothed  the same with label smoothing
    hf        the model's own loss on full logits
    hidden    our loop, soft labels on disk as hidden states (bfloat16)
    sampled   our loop, soft labels on disk as 32 + 32 entries
    online    our loop, the teacher beside the student
    plain     two forward passes, full logits of both, as MiniLLM does it
    gkd       TRL's GKDTrainer.compute_loss on given responses (with --trl)

With --device cuda: a student of Qwen2.5-1.5B's shape, a teacher of 7B's, in bfloat16; wall time, and the peak of
allocated GPU memory. There is no room for the models of all kinds at once: each has a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.worlds import make_model, make_rows
from kdray.artifacts.rows import Rows
from kdray.artifacts.soft_labels import write_labels
from kdray.data.collate import collate
from kdray.distill.labels import Teacher
from kdray.distill.signals import make_form
from kdray.distill.signals.online import OnlineTeacher
from kdray.distill.stored import Stored, write_head
from kdray.models.head import ResponseModel
from kdray.train.loop import Loop, Ranks
from kdray.train.settings import Settings

BATCH, ROWS = 4, 17
KINDS = ("sft", "smoothed", "hf", "hidden", "sampled", "online", "plain")
CPU = {"student": ("smollm2-135m", 10), "teacher": ("smollm2-135m", 30), "dtype": "float32"}
CUDA = {"student": ("qwen2.5-1.5b", 28), "teacher": ("qwen2.5-7b", 28), "dtype": "bfloat16"}
PEAK_FLOPS = 989e12  # of an H100 or H200 SXM, dense bfloat16


class World:
    """Rows, a student and a teacher for one length of sequence."""

    def __init__(self, folder: Path, length: int, device: str) -> None:
        self.shapes = CUDA if device == "cuda" else CPU
        self.device, self.folder, self.length = device, folder, length
        self.rows = make_rows(folder / "rows", [(length // 2, length - length // 2)] * ROWS, 49_000)

    def model(self, role: str) -> ResponseModel:
        shape, layers = self.shapes[role]
        dtype = torch.bfloat16 if role == "teacher" and self.device == "cuda" else torch.float32
        return ResponseModel(make_model(shape, layers, dtype).to(self.device))

    def settings(self, alpha: float, smoothing: float) -> Settings:
        return Settings(
            lr=1e-5,
            batch=BATCH,
            alpha=alpha,
            smoothing=smoothing,
            seed=0,
            unit="steps",
            length=10_000.0,
            schedule={"name": "constant", "params": {}},
            warmup=0.0,
            weight_decay=0.01,
            clip=1.0,
            dtype=self.shapes["dtype"],
            packing=True,
        )

    def loop(self, signal: Any = None, smoothing: float = 0.0) -> Loop:
        settings = self.settings(1.0 if signal else 0.0, smoothing)
        return Loop(self.model("student"), self.rows, settings, signal=signal, vocab_size=49_000, ranks=Ranks())

    def stored(self, name: str) -> Stored:
        """Soft labels of random hidden states: no teacher is loaded but for its head."""
        folder = self.folder / name
        folder.mkdir()
        form, (shape, _) = make_form({"name": name, "params": {}}), self.shapes["teacher"]
        head = ResponseModel(make_model(shape, 1)).head
        kept = []
        for row in range(ROWS):
            dice = torch.Generator().manual_seed(row)
            states = torch.randn(int(self.rows.response_lengths[row]), head.linear.in_features, generator=dice)
            with torch.no_grad():
                kept.append(form.keep(states, Teacher(head, 49_000, 1.0), dice))
        write_labels(folder, 0, range(ROWS), kept)
        if name == "hidden":
            write_head(head, folder)
        return Stored(folder, form, 1.0, self.device, getattr(torch, self.shapes["dtype"]))


def make_step(kind: str, world: World) -> Callable[[], Any]:
    """A function that takes one optimiser step of this kind."""
    if kind == "sft":
        steps = world.loop().steps()
    elif kind == "smoothed":
        steps = world.loop(smoothing=0.1).steps()
    elif kind in ("hidden", "sampled"):
        steps = world.loop(world.stored(kind)).steps()
    elif kind == "online":
        steps = world.loop(
            OnlineTeacher(world.model("teacher"), world.rows, getattr(torch, world.shapes["dtype"]))
        ).steps()
    else:
        return plain_step(world, {"hf": hf_loss, "plain": plain_loss, "gkd": gkd_loss}[kind], with_teacher=kind != "hf")
    return lambda: next(steps)


def plain_step(world: World, loss_of: Callable[..., torch.Tensor], with_teacher: bool) -> Callable[[], None]:
    """A step as it is written where full logits are made."""
    student = world.model("student").whole.train()
    teacher = world.model("teacher").whole.eval() if with_teacher else None
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-5, weight_decay=0.01)
    dtype = getattr(torch, world.shapes["dtype"])

    def step() -> None:
        ids, labels = full_labels(world.rows, list(range(1, 1 + BATCH)), world.device)
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(world.device, dtype, enabled=dtype != torch.float32):
            loss = loss_of(student, teacher, ids, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        loss.item()

    return step


def full_labels(rows: Rows, chosen: list[int], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """[B, T] ids, and labels in Hugging Face's convention."""
    batch = collate(rows, chosen)
    labels = torch.full_like(batch.input_ids, -100)
    labels[batch.positions[:, 0], batch.positions[:, 1] + 1] = batch.labels
    return batch.input_ids.to(device), labels.to(device)


def hf_loss(student: Any, teacher: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return student(input_ids=ids, labels=labels, use_cache=False).loss


def plain_loss(student: Any, teacher: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Both models' full logits, infinite ones masked, the prompt's tokens left out at the end."""
    logits = student(input_ids=ids, use_cache=False).logits
    with torch.no_grad():
        theirs = teacher(input_ids=ids, use_cache=False).logits
    targets = labels[:, 1:].flatten()
    hard = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets)
    probabilities = theirs.float().softmax(-1)
    products = probabilities * logits.float().log_softmax(-1)
    products = products.masked_fill(logits.isinf(), 0).sum(-1)[:, :-1].flatten()
    mask = targets != -100
    return hard - (products * mask).sum() / mask.sum()


def gkd_loss(student: Any, teacher: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """TRL's own code from batch to loss: offline (lmbda 0) and forward KL (beta 0)."""
    from types import SimpleNamespace

    from trl.experimental.gkd import GKDTrainer

    prompt = int((labels[0] != -100).int().argmax())
    trainer = SimpleNamespace(
        teacher_model=teacher,
        beta=0.0,
        temperature=1.0,
        use_liger_gkd_loss=False,
        generalized_jsd_loss=GKDTrainer.generalized_jsd_loss,
    )
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "prompts": ids[:, :prompt]}
    return GKDTrainer.compute_loss(trainer, student, inputs)


def times(kinds: list[str], length: int, rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of every step, by kind; the kinds take turns, and a first round is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), length, device)
        steps = {kind: make_step(kind, world) for kind in kinds}
        taken: dict[str, list[float]] = {kind: [] for kind in kinds}
        for i in range(rounds + 1):
            for kind, step in steps.items():
                gc.collect()
                begin = now(device)
                step()
                if i:
                    taken[kind].append(now(device) - begin)
    return taken


def now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


@dataclass(frozen=True)
class Alone:
    """Of a process that takes steps of one kind: the seconds of every step but the first, and its peak of memory."""

    seconds: list[float]
    peak: int


def alone(kind: str, length: int, rounds: int, device: str) -> Alone:
    """Measured in a process of its own."""
    size = ["--lengths", str(length), "--rounds", str(rounds), "--device", device]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.train_step", "--alone", kind, *size],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return Alone(**json.loads(done.stdout.splitlines()[-1]))


def report_alone(kind: str, length: int, rounds: int, device: str) -> None:
    """Print what `alone` reads."""
    print(json.dumps(asdict(Alone(times([kind], length, rounds, device)[kind], peak_bytes(device)))))


def peak_bytes(device: str) -> int:
    """Of this process until now."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    # Not getrusage: what it gives a child begins at its parent's peak.
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 512], help="tokens of a sequence")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--trl", action="store_true", help="time TRL's GKD too: pip install --no-deps trl first")
    parser.add_argument("--no-packing", action="store_true", help="leave the comparison of packed and padded rows out")
    parser.add_argument(
        "--json", action="store_true", help="end with one line of JSON: ratios of medians at the first length"
    )
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.alone:
        report_alone(arguments.alone, arguments.lengths[0], arguments.rounds, arguments.device)
        return
    summary: dict[str, float] = {}
    for length in arguments.lengths:
        kinds = [*KINDS, *(["gkd"] if arguments.trl else [])]
        # A GPU has no room for the models of all kinds at once, as turns would need.
        turns = arguments.device == "cpu"
        rounds = 1 if turns else arguments.rounds
        found = {kind: alone(kind, length, rounds, arguments.device) for kind in kinds}
        peaks = {kind: one.peak for kind, one in found.items()}
        seconds = {kind: one.seconds for kind, one in found.items()}
        if turns:
            seconds = times(kinds, length, arguments.rounds, arguments.device)
        print(flush=True)
        print(f"batch {BATCH} x {length} tokens, {arguments.device}, {arguments.rounds} rounds")
        print(f"{'step':10}{'min s':>9}{'median s':>10}{'/ sft':>8}{'/ plain':>9}{'peak GB':>9}{'/ plain':>9}")
        middle = {kind: statistics.median(values) for kind, values in seconds.items()}
        for kind in kinds:
            print(
                f"{kind:10}{min(seconds[kind]):9.3f}{middle[kind]:10.3f}{middle[kind] / middle['sft']:8.2f}"
                f"{middle[kind] / middle['plain']:9.2f}{peaks[kind] / 1e9:9.2f}{peaks[kind] / peaks['plain']:9.2f}"
            )
        summary = summary or {
            "kd_hidden_over_sft": middle["hidden"] / middle["sft"],
            "kd_sampled_over_sft": middle["sampled"] / middle["sft"],
            "kd_hidden_over_online": middle["hidden"] / middle["plain"],
            "mem_hidden_over_online": peaks["hidden"] / peaks["plain"],
            "smoothed_over_sft": middle["smoothed"] / middle["sft"],
            "sft_fused_over_hf": middle["sft"] / middle["hf"],
        }
        if arguments.device == "cuda":
            report_share_of_peak(middle["hidden"], length)
    if not arguments.no_packing:
        from packing import measure

        packing = measure([BATCH], arguments.rounds)["batch"][str(BATCH)]
        print(f"\npadded over packed, batch {BATCH}, Dolly's lengths: {packing['ratio']['median']:.2f}")
        summary["packing_over_dynamic"] = packing["ratio"]["median"]
    if arguments.json:
        print(json.dumps({name: round(value, 4) for name, value in summary.items()}))


def report_share_of_peak(seconds: float, length: int) -> None:
    """Tokens a second and the share of the GPU's arithmetic of a step from hidden states."""
    student = make_model(*CUDA["student"], dtype=torch.bfloat16)
    head = student.lm_head.weight.numel()
    body = sum(p.numel() for p in student.model.parameters()) - head
    tokens = BATCH * length
    flops = 6 * body * tokens + (6 * head + 2 * head) * tokens / 2  # half are response tokens; the teacher's head once
    print(f"hidden: {tokens / seconds:,.0f} tokens a second, {flops / seconds / PEAK_FLOPS:.0%} of peak")


if __name__ == "__main__":
    main()
