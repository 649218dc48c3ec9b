"""soften: one pass of the teacher over the prepared rows, its soft labels kept on disk for the whole grid."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

import torch

from kdray.data.collate import collate
from kdray.data.rows import Rows
from kdray.models.head import ResponseModel
from kdray.models.load import load_folder
from kdray.plan import Step
from kdray.stages.pipeline import Item, carry_over, parts, run_pipeline, write_part
from kdray.stages.work import Work

VERSION = 1
ROWS_PER_PART = 16


def soften(steps: list[Step], work: Work) -> None:
    """Make the missing ones of `steps`."""
    for step in steps:
        with work.claim([step]) as claimed:
            for _, attempt in claimed:
                data = work.folder(step.inputs["data"])
                rows = Rows(data)
                present = carry_over(attempt)
                count = -(-len(rows) // ROWS_PER_PART)
                items = [{"key": str(i), "target": str(attempt.path)} for i in range(count) if i not in present]
                make = functools.partial(Softener, work.folder(step.inputs["teacher"]), data, step.params)
                form = _form(step.params)
                errors = []
                with work.progress.bar("soften", count, "parts") as bar:
                    bar.set(len(present))
                    for _, error in run_pipeline([[item] for item in items], make, work.resources):
                        errors += [error] if error else []
                        bar.advance()
                if errors or len(parts(attempt.path)) != count:
                    work.fail(step, errors[0] if errors else "parts are missing")
                    continue
                teacher, _ = load_folder(work.folder(step.inputs["teacher"]))
                form.write_head(ResponseModel(teacher).head, attempt.path)
                tokens = int(rows.response_lengths.sum())
                size = sum(path.stat().st_size for path in attempt.path.iterdir())
                work.seal(step, attempt, response_tokens=tokens, bytes=size)
                work.progress.say(f"soft labels: {tokens:,} response tokens, {size / 1e6:,.1f} MB")


class Softener:
    """Writes the soft labels of one part of the rows."""

    def __init__(self, teacher: Path, data: Path, params: dict[str, Any]) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # The backbone runs in float32: only what is kept is rounded.
        model, _ = load_folder(teacher)
        self.model = ResponseModel(model).to(self.device)
        self.rows, self.params, self.form = Rows(data), params, _form(params)

    @torch.inference_mode()
    def __call__(self, item: Item) -> None:
        index = int(item["key"])
        chosen = list(range(index * ROWS_PER_PART, min((index + 1) * ROWS_PER_PART, len(self.rows))))
        states: list[torch.Tensor] = []
        for start in range(0, len(chosen), self.params["batch"]):
            some = chosen[start : start + self.params["batch"]]
            batch = collate(self.rows, some).to(self.device)
            hidden = self.model.hidden(batch.input_ids, batch.attention_mask, batch.positions).cpu()
            states += hidden.split(self.rows.response_lengths[some].tolist())
        write = functools.partial(self.form.write_part, rows=chosen, states=states, dtype=_dtype(self.params))
        write_part(Path(item["target"]), index, ".safetensors", write)


def _form(params: dict[str, Any]) -> Any:
    return importlib.import_module(f"kdray.distill.signals.{params['form']['name']}")


def _dtype(params: dict[str, Any]) -> torch.dtype:
    return getattr(torch, params["dtype"])
