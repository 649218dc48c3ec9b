"""What lookback ratios cost, in time and in memory, beside eager attention and beside no ratios at all.

A model of SmolLM2-135M's shape reads one sequence, of which the last RESPONSE tokens are a response, without its output
head. One thread; process CPU time; the ways take turns; minimum over the rounds. Memory is the peak RSS of a process
that does nothing but the one way, the model's own 0.5 GB included.

    eager      eager attention gives all its matrices, and the ratios are read from them: the way of the authors' code
    lookback   `kdray.lens.lookback_ratios`
    sdpa       fused attention, no ratios

With --device cuda: a model of Qwen2.5-7B's shape in bfloat16, four sequences at once; wall time, median; memory is the
peak of what is allocated in a pass, and the model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.clocks import GpuMemory, now, peak_rss
from benchmarks.worlds import make_model
from kdray.lens.ratios import Passage, ratios_of

KINDS = ("eager", "lookback", "sdpa")
RESPONSE, TAIL = 128, 8


@dataclass(frozen=True)
class Device:
    """What is measured on a kind of device, and how."""

    name: str
    shape: str
    layers: int
    dtype: torch.dtype
    batch: int
    rounds: int
    uncounted: int  # rounds before those: a GPU's clocks rise, its memory is handed out
    tolerance: float  # of a ratio beside eager attention's, of which bfloat16 leaves two digits


DEVICES = {
    "cpu": Device("cpu", "smollm2-135m", 30, torch.float32, 1, 3, 1, 1e-4),
    "cuda": Device("cuda", "qwen2.5-7b", 28, torch.bfloat16, 4, 10, 4, 1e-1),
}


@dataclass(frozen=True)
class Measured:
    seconds: float
    peak: int  # bytes


def eager_ratios(model: Any, ids: Tensor, n_context: int, n_prompt: int) -> Tensor:
    """[B, R, L, H] from the attention matrices of all layers."""
    queries = torch.arange(n_prompt - 1, ids.shape[1] - 1, device=ids.device)
    ratios = []
    for matrix in model.get_decoder()(input_ids=ids, output_attentions=True, use_cache=False).attentions:
        rows = matrix[:, :, queries].float()
        context = rows[..., :n_context].sum(-1) / n_context
        new = rows[..., n_context:].sum(-1) / (queries + 1 - n_context)
        ratios.append(context / (context + new))
    return torch.stack(ratios).permute(1, 3, 0, 2)


def make_way(kind: str, device: Device, batch: int, length: int, model: Any = None) -> Callable[[], Any]:
    """A function that reads the sequences once; eager attention needs a model of its own."""
    model = model or made(kind, device)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 49_000, (batch, length), generator=generator)
    n_prompt = length - RESPONSE
    if kind == "lookback":
        passages = [Passage(row, n_prompt - TAIL, n_prompt) for row in ids.tolist()]
        return lambda: torch.stack(ratios_of(model, passages))
    ids = ids.to(device.name)
    if kind == "sdpa":
        return lambda: model.get_decoder()(input_ids=ids, use_cache=False)
    return lambda: eager_ratios(model, ids, n_prompt - TAIL, n_prompt).cpu()


def made(kind: str, device: Device) -> Any:
    """A model with the attention that this way begins with."""
    model: Any = make_model(device.shape, device.layers, device.dtype, device=device.name).eval()
    model.set_attn_implementation("eager" if kind == "eager" else "sdpa")
    return model


@torch.inference_mode()
def measure(device: Device, batch: int, length: int, rounds: int) -> dict[str, Measured]:
    """Seconds of a pass, by kind, and its peak of memory; first rounds are not counted."""
    fused = made("sdpa", device)
    models = {"eager": made("eager", device), "lookback": fused, "sdpa": fused}
    ways = {kind: make_way(kind, device, batch, length, models[kind]) for kind in KINDS}
    apart = (ways["lookback"]() - ways["eager"]()).abs()
    print(f"\nratios are {apart.mean():.1g} apart, at most {apart.max():.1g}")
    assert apart.max() < device.tolerance
    taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for i in range(device.uncounted + rounds):
        for kind, way in ways.items():
            begin = now(device.name)
            way()
            if i >= device.uncounted:
                taken[kind].append(now(device.name) - begin)
    if device.name == "cpu":
        return {kind: Measured(min(taken[kind]), peak_alone(kind, batch, length)) for kind in KINDS}
    weights = sum(p.numel() * p.element_size() for p in fused.parameters())
    return {kind: Measured(statistics.median(taken[kind]), weights + peak_of(ways[kind])) for kind in KINDS}


def peak_of(way: Callable[[], Any]) -> int:
    """Bytes of GPU memory that a pass takes beyond what is allocated."""
    memory = GpuMemory()
    way()
    return memory.peak()


def peak_alone(kind: str, batch: int, length: int) -> int:
    """Peak RSS of a process of its own that goes this way."""
    command = [sys.executable, "-m", "benchmarks.lookback", "--peak", kind]
    command += ["--batch", str(batch), "--lengths", str(length)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[512, 1024, 2048], help="tokens of prompt and response"
    )
    parser.add_argument("--device", choices=list(DEVICES), default="cpu")
    parser.add_argument("--batch", type=int, help="sequences (default: 1, on a GPU 4)")
    parser.add_argument("--rounds", type=int, help="passes that are counted (default: 3, on a GPU 10)")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON: ratios at each length")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = DEVICES[arguments.device]
    batch, rounds = arguments.batch or device.batch, arguments.rounds or device.rounds
    if device.name == "cpu":
        torch.set_num_threads(1)
    if arguments.peak:
        with torch.inference_mode():
            make_way(arguments.peak, device, batch, arguments.lengths[0])()
        print(peak_rss())
        return
    summary = {}
    for length in arguments.lengths:
        found = measure(device, batch, length, rounds)
        print(f"{batch} x {length} tokens, {RESPONSE} of them a response, {device.shape}, {device.name}")
        print(f"{'way':10}{'s':>9}{'/ eager':>9}{'/ sdpa':>8}{'peak GB':>9}{'/ eager':>9}")
        times, peaks = ({kind: getattr(found[kind], what) for kind in KINDS} for what in ("seconds", "peak"))
        for kind in KINDS:
            print(
                f"{kind:10}{times[kind]:9.4f}{times[kind] / times['eager']:9.2f}{times[kind] / times['sdpa']:8.2f}"
                f"{peaks[kind] / 1e9:9.2f}{peaks[kind] / peaks['eager']:9.2f}",
                flush=True,
            )
        summary |= {
            f"time_over_eager_{length}": times["lookback"] / times["eager"],
            f"mem_over_eager_{length}": peaks["lookback"] / peaks["eager"],
            f"time_over_sdpa_{length}": times["lookback"] / times["sdpa"],
        }
    if arguments.json:
        print(json.dumps({name: round(value, 4) for name, value in summary.items()}))


if __name__ == "__main__":
    main()
