"""How scores are called. Nobody else puts such a name together, or takes one apart."""

from __future__ import annotations

import re

from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.decodings import PLAIN

CALIBRATION = ("ece", "brier")  # measured on every multiple-choice task
COUNTS = ("empty", "unfinished", "failed")  # shares of answers and questions that came to nothing
# what lm-eval measures that should fall, by its registry and its task files
LM_EVALS_LOSSES = re.compile(
    r"(?:^|_)(?:perplexity|bits_per_byte|brier_score|ter|wer|bias|likelihood_diff|difference_male_female|toxicity_score"
    r"|pct_(?:stereotype|invalid|(?:fe)?male_preferred))$|(?:^|_)bias_score(?:_|$)"
)


class MetricName(str):
    """A score's name in tables and MLflow, `xsum_rougeL.dola`: a text that knows what it is made of.

    `decoding` is the label of how the answers were decoded; greedy ones have none in their names.
    """

    __slots__ = ("decoding", "metric", "task")
    task: str
    metric: str
    decoding: str

    def __new__(cls, task: str, metric: str, decoding: str = "") -> MetricName:
        asked = declared(declare.Task, task)
        short = None if asked.several and ":" in task else asked.short.get(metric)
        name = super().__new__(cls, (short or f"{base_of(task)}_{metric}") + _ending(decoding))
        name.task, name.metric, name.decoding = task, metric, decoding
        return name

    @classmethod
    def parse(cls, written: str) -> MetricName:
        """The name behind `task/metric`, as a grid file writes it; the decoding, if one is meant, stands behind a
        dot.
        """
        task, _, rest = written.rpartition("/")
        metric, _, decoding = rest.partition(".")
        return cls(task, metric, decoding)

    @property
    def written(self) -> str:
        """The name as a grid file writes it."""
        return f"{self.task}/{self.metric}{_ending(self.decoding)}"

    @property
    def lower_is_better(self) -> bool:
        """Whether the metric should fall."""
        asked = declared(declare.Task, self.task)
        if self.metric in asked.short:
            return self.metric in asked.lower_is_better
        return self.metric in (*COUNTS, *CALIBRATION) or LM_EVALS_LOSSES.search(self.metric) is not None

    def __reduce__(self) -> tuple[type[MetricName], tuple[str, str, str]]:
        return MetricName, (self.task, self.metric, self.decoding)


def base_of(task: str) -> str:
    """What the names of a task's scores begin with: its own name, if it has one, or its headline's beginning."""
    asked, of = declared(declare.Task, task), task.partition(":")[2]
    first = of or next(iter(asked.short.values()))
    return first if of or isinstance(asked, declare.ChoiceTask) else first.partition("_")[0]


def chosen_by_answers() -> MetricName:
    """What `best_answers` goes by, as `report.checkpoint` and as `score.checkpoints`."""
    return MetricName("heldout_answers", "rougeL", PLAIN)


def _ending(decoding: str) -> str:
    return f".{decoding}" if decoding not in ("", PLAIN) else ""
