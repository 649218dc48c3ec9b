"""Any task or group of lm-eval's by its own name: write `lm_eval:mmlu`."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt

from kdray.spec import declare

DECLARED = declare.ChoiceTask(version=2, named=True, short={})


def lm_eval(
    *,
    source: str | None = None,
    limit: PositiveInt | None = None,
    shots: NonNegativeInt | None = None,
    untrained_shots: NonNegativeInt | None = None,
    shots_source: str | None = None,
    chat_template: bool = False,
) -> None:
    """`source`: another test set for a single task; `limit`: only so many questions a task; `shots`: null for the
    task's own number; `untrained_shots`: those of models that were not trained here.
    """
