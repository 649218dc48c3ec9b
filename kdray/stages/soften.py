"""soften: one pass of the teacher over the prepared rows, its soft labels kept on disk for the whole grid."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdray.artifacts.parts import parts
from kdray.artifacts.rows import Rows
from kdray.artifacts.soft_labels import has_head, read_fact, write_labels
from kdray.data.collate import collate
from kdray.distill.labels import Sparse, Teacher
from kdray.distill.signals import make_form
from kdray.distill.stored import Stored, write_head
from kdray.models.adapters import load_teacher
from kdray.models.head import ResponseModel
from kdray.models.load import load_tokenizer, token_count
from kdray.orchestration.items import Part
from kdray.orchestration.pipeline import make_parts, run_pipeline
from kdray.orchestration.work import Work
from kdray.plan import Step
from kdray.plan.inputs import SoftenInputs
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.errors import InputError

DECLARED = declare.Stage(version=3)
PARTS, LEAST_ROWS = 256, 16  # about so many parts; rows in one of them
CHUNK = 256  # tokens whose logits are there at a time


def soften(steps: list[Step[SoftenInputs]], work: Work) -> None:
    """Make the missing ones of `steps`."""
    for step, attempt in work.each(steps):
        data, teacher = work.folder(step.inputs.data), work.folder(step.inputs.teacher)
        form, rows = make_form(step.params["form"]), Rows(data)
        _require_room(form, token_count(load_tokenizer(teacher)))
        make = functools.partial(Softener, teacher, data, step.params)
        gpus = work.gpus_for(step.inputs.teacher, step.params["compute"], step.params.get("quantise"))
        error = make_parts("soften", _cuts(len(rows)), attempt, make, work, gpus)
        if (
            not error and _has_head(step.params) and not has_head(attempt.path)
        ):  # an earlier attempt made the first part
            head = Part(key="head", gpus=gpus, target=attempt.path, index=0)
            [(_, error)] = run_pipeline([[head]], make, work.resources, work.crew)
        if error:
            work.fail(step, error)
            continue
        facts = _facts(attempt.path, form, int(rows.response_lengths.sum()))
        work.seal(step, attempt, None, **facts)
        work.progress.say(
            f"soft labels: {facts['response_tokens']:,} response tokens, {facts['bytes'] / 1e6:,.1f} MB, "
            f"{facts['bytes_per_token']:,.0f} bytes a token, error {facts['error']:.1e}"
        )


class Softener:
    """Writes the soft labels of one part of the rows, and before the first one the teacher's head."""

    def __init__(self, teacher: Path, data: Path, params: dict[str, Any]) -> None:
        compute = getattr(torch, params["compute"])
        model, tokenizer = load_teacher(teacher, compute, params.get("quantise"), "soft_labels.quantise")
        self.model = ResponseModel(model)
        self.teacher = Teacher(self.model.head, token_count(tokenizer), params.get("temperature", 1.0))
        self.rows, self.params, self.form = Rows(data), params, make_form(params["form"])

    @torch.inference_mode()
    def __call__(self, item: Part) -> None:
        chosen = item.rows
        if item.index == 0 and _has_head(self.params):
            write_head(self.model.head, item.target)
        if not chosen:
            return
        states: list[Tensor] = []
        for start in range(0, len(chosen), self.params["batch"]):
            some = chosen[start : start + self.params["batch"]]
            batch = collate(self.rows, some).to(self.model.device)
            hidden = self.model.hidden(batch.input_ids, batch.attention_mask, batch.positions)
            states += hidden.split(self.rows.response_lengths[some].tolist())
        kept = [self._keep(row, of_row) for row, of_row in zip(chosen, states, strict=True)]
        write_labels(item.target, item.index, chosen, kept, error=self._error(states[0], kept[0]))

    def _keep(self, row: int, states: Tensor) -> dict[str, Tensor]:
        """What is kept of a row: random draws depend on its number alone, not on how the rows are cut into parts."""
        dice = torch.Generator().manual_seed(row)
        chunks = [self.form.keep(some, self.teacher, dice) for some in states.split(CHUNK)]
        return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}

    def _error(self, states: Tensor, kept: dict[str, Tensor]) -> float:
        """How far the kept distributions of some tokens are from the exact ones: | sum (q' - q) g^T | / | sum q g^T |.

        g are the hidden states; the sums are the teacher's part in the gradient of an output head.
        """
        states, kept = states[:CHUNK], {name: tensor[:CHUNK] for name, tensor in kept.items()}
        exact = self.teacher.log_probabilities(states).exp()
        labels = self.form.labels(kept, self.model.head.as_type(torch.float32)).chunk(0, len(states))
        if isinstance(labels, Sparse):
            found = torch.zeros_like(exact).scatter_add_(1, labels.ids, labels.weights)
        else:
            found = (labels[:, : exact.shape[1]].float() / self.teacher.temperature).softmax(1)
        return float(
            torch.linalg.norm((found - exact).T @ states.float()) / torch.linalg.norm(exact.T @ states.float())
        )


def _cuts(count: int) -> list[range]:
    """All rows cut into parts: a function of their number alone."""
    size = max(LEAST_ROWS, -(-count // PARTS))
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _has_head(params: dict[str, Any]) -> bool:
    """Whether what is kept is read through the teacher's output head."""
    return declared(declare.Form, params["form"]["name"]).head


def _require_room(form: Any, vocab_size: int) -> None:
    entries = getattr(form, "entries", 0)
    if entries > vocab_size:
        raise InputError(
            "soft_labels", f"{entries} entries a token of {vocab_size}", "keep fewer, or use the form logits"
        )


def _facts(folder: Path, form: Any, tokens: int) -> dict[str, float]:
    """Sizes and exactness, for the record."""
    size = sum(path.stat().st_size for path in folder.iterdir())
    kept = parts(folder).values()
    facts = {
        "response_tokens": tokens,
        "bytes": size,
        "bytes_per_token": sum(p.stat().st_size for p in kept) / max(tokens, 1),
    }
    facts["error"] = sum(read_fact(folder, "error")) / len(kept)
    missing_mass = Stored(folder, form).mean("tail")
    return facts if missing_mass is None else facts | {"missing_mass": missing_mass}
