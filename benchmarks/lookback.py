"""What lookback ratios cost, in time and in memory, beside eager attention and beside no ratios at all.

A model of SmolLM2-135M's shape reads one sequence, of which the last RESPONSE tokens are a response, without its output
head. One thread; process CPU time; the ways take turns; minimum over the rounds. Memory is the peak RSS of a process
that does nothing but the one way, the model's own 0.5 GB included.

    eager      eager attention gives all its matrices, and the ratios are read from them: the way of the authors' code
    lookback   `kdray.lens.lookback_ratios`
    sdpa       fused attention, no ratios
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.worlds import make_model
from kdray.lens import lookback_ratios

KINDS = ("eager", "lookback", "sdpa")
RESPONSE, TAIL = 128, 8


def eager_ratios(model: Any, ids: Tensor, n_context: int, n_prompt: int) -> Tensor:
    """[R, L, H] from the attention matrices of all layers."""
    queries = torch.arange(n_prompt - 1, len(ids) - 1)
    ratios = []
    for matrix in model.get_decoder()(input_ids=ids[None], output_attentions=True, use_cache=False).attentions:
        rows = matrix[0, :, queries]
        context = rows[..., :n_context].sum(-1) / n_context
        new = rows[..., n_context:].sum(-1) / (queries + 1 - n_context)
        ratios.append(context / (context + new))
    return torch.stack(ratios).permute(2, 0, 1)


def make_way(kind: str, length: int) -> Callable[[], Any]:
    """A function that reads the sequence once."""
    model: Any = make_model("smollm2-135m", 30).eval()
    model.set_attn_implementation("eager" if kind == "eager" else "sdpa")
    ids = torch.randint(0, 49_000, (length,), generator=torch.Generator().manual_seed(0))
    n_prompt = length - RESPONSE
    if kind == "sdpa":
        return lambda: model.get_decoder()(input_ids=ids[None], use_cache=False)
    ratios = eager_ratios if kind == "eager" else lookback_ratios
    return lambda: ratios(model, ids, n_prompt - TAIL, n_prompt)


@torch.inference_mode()
def seconds(length: int, rounds: int) -> dict[str, float]:
    """CPU seconds of a pass, by kind; a first round is not counted."""
    ways = {kind: make_way(kind, length) for kind in KINDS}
    torch.testing.assert_close(ways["lookback"](), ways["eager"](), rtol=0, atol=1e-4)
    best = dict.fromkeys(KINDS, float("inf"))
    for i in range(rounds + 1):
        for kind, way in ways.items():
            begin = time.process_time()
            way()
            if i:
                best[kind] = min(best[kind], time.process_time() - begin)
    return best


def peak_bytes(kind: str, length: int) -> int:
    """Peak RSS of a process of its own that goes this way."""
    command = [sys.executable, "-m", "benchmarks.lookback", "--peak", kind, "--lengths", str(length)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


@torch.inference_mode()
def report_peak(kind: str, length: int) -> None:
    """Print the peak RSS of this process after one pass, in bytes."""
    make_way(kind, length)()
    # Not getrusage: what it gives a child begins at its parent's peak.
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(line.split()[1]) * 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[512, 1024, 2048], help="tokens of prompt and response"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON: ratios at each length")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.peak:
        report_peak(arguments.peak, arguments.lengths[0])
        return
    summary = {}
    for length in arguments.lengths:
        peaks = {kind: peak_bytes(kind, length) for kind in KINDS}
        times = seconds(length, arguments.rounds)
        print(f"\n{length} tokens, {RESPONSE} of them a response", flush=True)
        print(f"{'way':10}{'s':>8}{'/ eager':>9}{'/ sdpa':>8}{'peak GB':>9}{'/ eager':>9}")
        for kind in KINDS:
            print(
                f"{kind:10}{times[kind]:8.2f}{times[kind] / times['eager']:9.2f}{times[kind] / times['sdpa']:8.2f}"
                f"{peaks[kind] / 1e9:9.2f}{peaks[kind] / peaks['eager']:9.2f}"
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
