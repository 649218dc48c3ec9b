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

With --device cuda: a student of Qwen2.5-1.5B's shape, a teacher of 7B's, in bfloat16, batch 8; wall time, and the
peak of allocated GPU memory. There is no room for the models of all kinds at once: one kind comes after the other, and
one that fails is left out.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.clocks import GpuMemory, now, peak_rss
from benchmarks.packing import measure
from benchmarks.worlds import SHAPES, make_model, make_rows
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

KINDS = ("sft", "smoothed", "hf", "hidden", "sampled", "online", "plain")
PEAK_FLOPS = 989e12  # of an H100 or H200 SXM, dense bfloat16


@dataclass(frozen=True)
class Device:
    """What is measured on a kind of device, and how: models by (shape, layers), the tokens that are real."""

    name: str
    student: tuple[str, int]
    teacher: tuple[str, int]
    vocabulary: int
    dtype: torch.dtype  # of products, and of the teacher's weights
    batch: int
    lengths: tuple[int, ...]
    rounds: int
    uncounted: int  # rounds before those: a GPU's clocks rise, its memory is handed out
    packing: bool = True  # of our loop's rows


DEVICES = {
    "cpu": Device("cpu", ("smollm2-135m", 10), ("smollm2-135m", 30), 49_000, torch.float32, 4, (256, 512), 5, 1),
    "cuda": Device("cuda", ("qwen2.5-1.5b", 28), ("qwen2.5-7b", 28), 151_665, torch.bfloat16, 8, (512,), 10, 4),
}


class World:
    """Rows, a student and a teacher for one size of batch and one length of sequence."""

    def __init__(self, folder: Path, device: Device, batch: int, length: int) -> None:
        self.folder, self.device, self.batch = folder, device, batch
        lengths = [(length // 2, length - length // 2)] * (4 * batch + 1)
        self.rows = make_rows(folder / "rows", lengths, device.vocabulary)

    def model(self, role: str) -> ResponseModel:
        shape, layers = self.device.student if role == "student" else self.device.teacher
        dtype = self.device.dtype if role == "teacher" else torch.float32
        return ResponseModel(make_model(shape, layers, dtype, device=self.device.name))

    def loop(self, signal: Any = None, smoothing: float = 0.0, tokenizer: Any = None, **more: Any) -> Loop:
        """`more` settings, and the tokenizer that those need by which the student samples."""
        settings = Settings(
            lr=1e-5,
            batch=self.batch,
            alpha=1.0 if signal else 0.0,
            smoothing=smoothing,
            seed=0,
            unit="steps",
            length=10_000.0,
            schedule={"name": "constant", "params": {}},
            warmup=0.0,
            weight_decay=0.01,
            clip=1.0,
            dtype=str(self.device.dtype).removeprefix("torch."),
            packing=self.device.packing,
            **more,
        )
        return Loop(
            self.model("student"),
            self.rows,
            settings,
            signal=signal,
            vocab_size=self.device.vocabulary,
            ranks=Ranks(),
            tokenizer=tokenizer,
        )

    def stored(self, name: str) -> Stored:
        """Soft labels of random hidden states: no teacher is loaded but for its head."""
        folder, device = self.folder / name, self.device
        folder.mkdir()
        form = make_form({"name": name, "params": {}})
        head = ResponseModel(make_model(device.teacher[0], 1, device.dtype, device=device.name)).head
        kept = []
        for row in range(len(self.rows.lengths)):
            dice = torch.Generator().manual_seed(row)
            states = torch.randn(int(self.rows.response_lengths[row]), head.linear.in_features, generator=dice)
            with torch.no_grad():
                kept.append(form.keep(states.to(device.name), Teacher(head, device.vocabulary, 1.0), dice))
        write_labels(folder, 0, range(len(kept)), kept)
        if name == "hidden":
            write_head(head, folder)
        return Stored(folder, form, 1.0, device.name, device.dtype)


def make_step(kind: str, world: World) -> Callable[[], Any]:
    """A function that takes one optimiser step of this kind."""
    if kind == "sft":
        steps = world.loop().steps()
    elif kind == "smoothed":
        steps = world.loop(smoothing=0.1).steps()
    elif kind in ("hidden", "sampled"):
        steps = world.loop(world.stored(kind)).steps()
    elif kind == "online":
        steps = world.loop(OnlineTeacher(world.model("teacher"), world.rows, world.device.dtype)).steps()
    else:
        return plain_step(world, {"hf": hf_loss, "plain": plain_loss, "gkd": gkd_loss}[kind], with_teacher=kind != "hf")
    return lambda: next(steps)


def plain_step(world: World, loss_of: Callable[..., torch.Tensor], with_teacher: bool) -> Callable[[], None]:
    """A step as it is written where full logits are made."""
    student = world.model("student").whole.train()
    teacher = world.model("teacher").whole.eval() if with_teacher else None
    device, dtype = world.device.name, world.device.dtype
    # As transformers' trainer does by default, and ours.
    fused = True if device == "cuda" else None
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-5, weight_decay=0.01, fused=fused)

    def step() -> None:
        ids, labels = full_labels(world.rows, list(range(1, 1 + world.batch)), device)
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
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
        generalized_jsd_loss=GKDTrainer.generalized_jsd_loss,
    )
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "prompts": ids[:, :prompt]}
    return GKDTrainer.compute_loss(trainer, student, inputs)


def times(kinds: list[str], device: Device, batch: int, length: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of every step, by kind; the kinds take turns, and first rounds are not counted."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), device, batch, length)
        steps = {kind: make_step(kind, world) for kind in kinds}
        taken: dict[str, list[float]] = {kind: [] for kind in kinds}
        for i in range(device.uncounted + rounds):
            for kind, step in steps.items():
                gc.collect()
                begin = now(device.name)
                step()
                if i >= device.uncounted:
                    taken[kind].append(now(device.name) - begin)
    return taken


@dataclass(frozen=True)
class Measured:
    """Of steps of one kind: the seconds of each that is counted, and the peak of memory in bytes."""

    seconds: list[float]
    peak: int

    @property
    def middle(self) -> float:
        return statistics.median(self.seconds)


def one_by_one(kinds: list[str], device: Device, batch: int, length: int, rounds: int) -> dict[str, Measured]:
    """On a GPU: one kind after the other, each alone there; without those that fail."""
    found = {}
    for kind in kinds:
        memory = GpuMemory()
        try:
            seconds = times([kind], device, batch, length, rounds)[kind]
        except Exception:  # noqa: BLE001 - the others are still wanted
            traceback.print_exc()
            continue
        found[kind] = Measured(seconds, memory.peak())
        print(f"{kind}: {found[kind].middle:.3f} s, {found[kind].peak / 1e9:.1f} GB", flush=True)
    return found


def in_turns(kinds: list[str], device: Device, batch: int, length: int, rounds: int) -> dict[str, Measured]:
    """On a CPU: times of one process, in which all kinds take turns, and memory of a process each."""
    peaks = {kind: peak_alone(kind, device, batch, length) for kind in kinds}
    seconds = times(kinds, device, batch, length, rounds)
    return {kind: Measured(seconds[kind], peaks[kind]) for kind in kinds}


def peak_alone(kind: str, device: Device, batch: int, length: int) -> int:
    """Peak RSS of a process of its own that takes two steps of this kind."""
    command = [sys.executable, "-m", "benchmarks.train_step", "--alone", kind]
    command += ["--batch", str(batch), "--lengths", str(length), "--rounds", "1"]
    command += [] if device.packing else ["--padded"]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=list(DEVICES), default="cpu")
    parser.add_argument("--batch", type=int, help="sequences of a step (default: 4, on a GPU 8)")
    parser.add_argument("--lengths", type=int, nargs="+", help="tokens of a sequence (default: 256 512, on a GPU 512)")
    parser.add_argument("--rounds", type=int, help="steps that are counted (default: 5, on a GPU 10)")
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS, "gkd"], default=list(KINDS), help="default: all but gkd")
    parser.add_argument("--padded", action="store_true", help="our loop's rows are padded, not packed")
    parser.add_argument("--trl", action="store_true", help="time TRL's GKD too: pip install --no-deps trl first")
    parser.add_argument("--no-packing", action="store_true", help="leave the comparison of packed and padded rows out")
    parser.add_argument(
        "--json", action="store_true", help="end with one line of JSON: ratios of medians at the first length"
    )
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = replace(DEVICES[arguments.device], packing=not arguments.padded)
    batch, rounds = arguments.batch or device.batch, arguments.rounds or device.rounds
    lengths = arguments.lengths or list(device.lengths)
    if device.name == "cpu":
        torch.set_num_threads(1)
    if arguments.alone:
        times([arguments.alone], device, batch, lengths[0], rounds)
        print(peak_rss())
        return
    kinds: list[str] = arguments.kinds + (["gkd"] if arguments.trl and "gkd" not in arguments.kinds else [])
    summary: dict[str, float] = {}
    failed: set[str] = set()
    for length in lengths:
        found = (one_by_one if device.name == "cuda" else in_turns)(kinds, device, batch, length, rounds)
        report(found, device, batch, length, rounds)
        summary = summary or summarise(found, device, batch, length)
        failed |= set(kinds) - set(found)
    if device.name == "cpu" and not arguments.no_packing:
        packing = measure([batch], rounds)["batch"][str(batch)]
        print(f"\npadded over packed, batch {batch}, Dolly's lengths: {packing['ratio']['median']:.2f}")
        summary["packing_over_dynamic"] = packing["ratio"]["median"]
    if arguments.json:
        print(json.dumps({name: round(value, 4) for name, value in summary.items()}))
    if failed:
        sys.exit(f"failed: {', '.join(sorted(failed))}")


def report(found: dict[str, Measured], device: Device, batch: int, length: int, rounds: int) -> None:
    """Print the table of one length; a ratio to a kind that was not measured is nan."""
    print(f"\nbatch {batch} x {length} tokens, {device.name}, {rounds} rounds")
    print(
        f"{'step':10}{'min s':>9}{'median s':>10}{'/ sft':>8}{'/ plain':>9}{'peak GB':>9}{'/ plain':>9}{'tokens/s':>10}"
    )
    for kind, one in found.items():
        print(
            f"{kind:10}{min(one.seconds):9.3f}{one.middle:10.3f}{over(found, kind, 'sft'):8.2f}"
            f"{over(found, kind, 'plain'):9.2f}{one.peak / 1e9:9.2f}{over(found, kind, 'plain', 'peak'):9.2f}"
            f"{batch * length / one.middle:10,.0f}"
        )
    if device.name == "cuda":
        for kind in sorted(found.keys() & {"sft", "hidden"}):
            share = share_of_peak(kind, found[kind].middle, device, batch, length)
            print(f"{kind}: {share:.1%} of {PEAK_FLOPS / 1e12:.0f} TFLOP/s")
    sys.stdout.flush()


def over(found: dict[str, Measured], kind: str, other: str, what: str = "middle") -> float:
    """Of the medians of time, or of the peaks of memory."""
    if kind not in found or other not in found:
        return float("nan")
    return getattr(found[kind], what) / getattr(found[other], what)


def summarise(found: dict[str, Measured], device: Device, batch: int, length: int) -> dict[str, float]:
    """What the line of JSON says, without what could not be measured."""
    ratios = {
        "kd_hidden_over_sft": over(found, "hidden", "sft"),
        "kd_sampled_over_sft": over(found, "sampled", "sft"),
        "kd_hidden_over_online": over(found, "hidden", "plain"),
        "mem_hidden_over_online": over(found, "hidden", "plain", "peak"),
        "smoothed_over_sft": over(found, "smoothed", "sft"),
        "sft_fused_over_hf": over(found, "sft", "hf"),
        "gkd_over_hidden": over(found, "gkd", "hidden"),
        "gkd_over_our_online": over(found, "gkd", "online"),
        "mem_gkd_over_hidden": over(found, "gkd", "hidden", "peak"),
    }
    summary = {name: value for name, value in ratios.items() if value == value}
    if device.name == "cuda":
        for kind in sorted(found.keys() & {"sft", "hidden"}):
            summary[f"{kind}_tokens_per_second"] = batch * length / found[kind].middle
            summary[f"{kind}_share_of_peak"] = share_of_peak(kind, found[kind].middle, device, batch, length)
    return summary


def share_of_peak(kind: str, seconds: float, device: Device, batch: int, length: int) -> float:
    """Of the GPU's arithmetic that a step needs: products with weights alone, attention left out."""
    student = make_model(*device.student, device="meta")
    hidden, vocabulary = SHAPES[device.teacher[0]][0], SHAPES[device.teacher[0]][4]
    head = student.lm_head.weight.numel()
    body = sum(p.numel() for p in student.model.parameters()) - head
    tokens, responses = batch * length, batch * (length - length // 2)
    flops = 6 * body * tokens + 6 * head * responses
    if kind == "hidden":
        flops += 2 * hidden * vocabulary * responses  # the teacher's head, once
    return flops / seconds / PEAK_FLOPS


if __name__ == "__main__":
    main()
