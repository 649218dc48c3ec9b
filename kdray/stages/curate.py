"""curate: which of the training rows are left where concepts that are often spoken of are thinned out.

The rows are prepared before, so that all points hold out the same ones and soft labels are made once, whichever of the
rows a point trains on. Beside the balanced rows as many are drawn at random: what fewer rows alone do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds

from kdray.artifacts.curated import write_chosen
from kdray.artifacts.parts import parts
from kdray.artifacts.rows import Rows
from kdray.curate.balance import at_random
from kdray.orchestration import curating
from kdray.orchestration.concepts import balanced, own_entries, read_entries
from kdray.orchestration.work import Work
from kdray.plan import Step
from kdray.plan.inputs import CurateInputs
from kdray.spec import declare
from kdray.spec.errors import InputError

DECLARED = declare.Stage(version=1)


@dataclass(frozen=True)
class RowTexts:
    """The training rows of a folder of prepared rows, as texts of some of their columns."""

    folder: Path
    columns: tuple[str, ...]

    def __len__(self) -> int:
        return len(self._rows.train)

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "columns": self.columns}  # workers map the file themselves

    def read(self, begin: int, end: int) -> tuple[np.ndarray, list[str]]:
        """See `kdray.orchestration.curating.Texts`; numbers are those of source rows."""
        rows = self._rows.train[begin:end]
        texts = [
            "\n".join(filter(None, (self._rows.text(row, name) for name in self.columns))) for row in rows.tolist()
        ]
        return self._rows.table["source_row"].to_numpy()[rows], texts

    @cached_property
    def _rows(self) -> Rows:
        return Rows(self.folder)


def curate(steps: list[Step[CurateInputs]], work: Work) -> None:
    """Make the missing ones of `steps`."""
    for step, attempt in work.each(steps):
        params, texts = step.params, RowTexts(work.folder(step.inputs.data), tuple(step.params["of"]))
        balance = curating.Balance(
            tuple(params["languages"]), params.get("threshold"), params.get("tail", 0.0), params["seed"]
        )
        if step.source:
            entries = read_entries(step.source, work.outer, balance.languages, params["metadata"])
        else:
            entries = own_entries(texts, balance.languages, params["least"], params["pairs"], work.progress)
        made = balanced(texts, entries, balance, attempt.path, work.progress)
        _choose(attempt.path, made, params["seed"])
        work.seal(step, attempt, None, rows=made.rows, matched=made.matched, kept=made.kept, thresholds=made.thresholds)
        work.progress.say(f"curate: {curating.told(made, entries)}")


def _choose(folder: Path, made: curating.Curated, seed: int) -> None:
    """Keep which rows are balanced, and as many at random."""
    table = ds.dataset([str(path) for path in parts(folder).values()]).to_table(columns=["row", "kept"])
    rows = table["row"].to_numpy()
    balanced = rows[table["kept"].to_numpy()]
    if not len(balanced):
        raise InputError("data.curate", f"keeps none of {made.rows} rows", "give a larger tail or threshold")
    write_chosen(folder, {"balanced": balanced, "random": at_random(rows, len(balanced), seed)})
