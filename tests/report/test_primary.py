"""What the verdict and MLflow's page are about where the grid file does not say, and what they say of it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api import metrics as _registers  # noqa: F401 - fills the registry
from lm_eval.api.registry import HIGHER_IS_BETTER_REGISTRY
from rich.console import Console

from kdray.check.benchmarks import official_tasks
from kdray.plan import Plan, make_plan
from kdray.report.results import Results, collect, primary_metric
from kdray.report.statistics import Difference, signed
from kdray.report.verdict import direction_of, verdict
from kdray.report.write import print_table
from kdray.score.prompts import Prompt
from kdray.spec.load import load_grid
from kdray.spec.metric_names import MetricName
from kdray.stages.generate import keep
from kdray.store import Outer, Store
from kdray.track.view import shared_view
from tests.answers import measure_answers, prompt_batch
from tests.conftest import TinyGrid
from tests.tiny import write_tokenizer

XSUM = {"name": "xsum", "source": "file:HERE/xsum.jsonl"}
ENTRY = re.compile(r"- metric: (\w+)\n(?:\s+(?!- )\S.*\n)*?\s+higher_is_better: (true|false)")  # of a list of metrics
SAID = {0.0: "Ada lives", 0.1: "Ada lives in Rome now"}


def plan_of(tiny_grid: TinyGrid, changes: dict[str, Any]) -> Plan:
    grid = load_grid(
        tiny_grid({"teacher": {"model": f"file:{tiny_grid.folder}/teacher"}, "axes.lr": [1e-3], **changes})
    )
    return make_plan(grid, Outer(Store(grid.runtime.store).root))


def measured(plan: Plan, folder: Path, said: dict[float, str]) -> Results:
    """The final scores of points that answered so, by alpha: answers and scores as the stages write them."""
    tokenizer, store = write_tokenizer(folder / "tokenizer"), Store(folder / "store")
    for score in plan.scores:
        if isinstance(score.subject, str) or score.position != plan.grid.train.total or score.task.name != "xsum":
            continue
        ids = tokenizer(said[score.subject.alpha])["input_ids"]
        prompt = Prompt(0, [1], "", "s", ["Ada lives in Rome"], [])
        attempt = store.begin(score.measure.key, score.measure.payload or {})
        outputs = folder / f"answers {score.subject.alpha}"
        outputs.mkdir()
        keep(prompt_batch(outputs, [prompt]), [ids], 1.0, tokenizer)
        measure_answers(score.measure, outputs, attempt)
        attempt.seal()
    return collect(plan, store)


def test_what_a_grid_is_about_follows_from_its_file_and_not_from_the_alphabet(tiny_grid: TinyGrid) -> None:
    """Stored scores are sorted, so that the first was `xsum_empty`."""
    plan = plan_of(tiny_grid, {"score.tasks": [XSUM, "heldout_loss"]})
    results = measured(plan, tiny_grid.folder, SAID)
    assert primary_metric(plan) == "xsum_rougeL"
    assert verdict(results)[0] == "On xsum_rougeL, KD 0.1 scores +22.22 against SFT (no difference shown)."
    assert json.loads(shared_view(plan))["orderByKey"] == "metrics.`xsum_rougeL`"


@pytest.mark.parametrize(
    ("changes", "metric"),
    [
        ({"score.tasks": ["heldout_loss", XSUM]}, "held_ce"),
        ({"score.tasks": ["heldout_answers", XSUM]}, "held_rougeL"),
        ({"score.tasks": [{"name": "truthfulqa", "source": "file:HERE/xsum.jsonl"}, XSUM]}, "tqa_truth"),
        ({"score.tasks": [XSUM, "heldout_loss"], "score.decoding": ["dola", "greedy"]}, "xsum_rougeL.dola"),
        ({"score.tasks": ["heldout_loss", XSUM], "score.decoding": ["dola", "greedy"]}, "held_ce"),
        ({"score.tasks": ["lm_eval:sciq", XSUM]}, "sciq_acc"),
        ({"score.tasks": ["lm_eval:sciq", XSUM], "report.primary": "xsum/rouge2"}, "xsum_rouge2"),
        ({"score.tasks": ["lm_eval:sciq", XSUM], "report.primary": "lm_eval:sciq/acc_norm"}, "sciq_acc_norm"),
    ],
)
def test_it_is_the_first_tasks_first_metric_under_the_first_decoding(
    changes: dict[str, Any], metric: str, tiny_grid: TinyGrid
) -> None:
    plan = plan_of(tiny_grid, changes)
    assert primary_metric(plan) == metric
    assert json.loads(shared_view(plan))["orderByKey"] == f"metrics.`{metric}`"


def test_a_metric_that_nothing_measured_is_named(tiny_grid: TinyGrid) -> None:
    plan = plan_of(tiny_grid, {"score.tasks": ["lm_eval:wikitext", XSUM]})
    results = measured(plan, tiny_grid.folder, SAID)
    said = "No verdict: no point has a score of wikitext_acc so far (report.primary may name another metric)."
    assert verdict(results) == [said]
    text = io.StringIO()
    print_table(results, Console(file=text, width=200))
    assert said in text.getvalue()


def test_points_that_say_the_same_are_not_different(tiny_grid: TinyGrid) -> None:
    plan = plan_of(tiny_grid, {"score.tasks": [XSUM, "heldout_loss"]})
    found = verdict(measured(plan, tiny_grid.folder, dict.fromkeys(SAID, "Ada lives in Rome")))[0]
    assert found == "On xsum_rougeL, KD 0.1 scores 0.00 against SFT (no difference)."


@pytest.mark.parametrize(
    ("mean", "interval", "text", "direction"),
    [
        (0.0, (0.0, 0.0), "0.00 [0.00, 0.00]", "no difference"),
        (1e-17, (1e-17, 1e-17), "0.00 [0.00, 0.00]", "no difference"),
        (-1e-17, None, "0.00", "no difference"),
        (0.001, (-0.2, 0.202), "0.00 [-0.20, +0.20]", "no difference shown"),
        (-0.001, None, "0.00", "no difference shown"),
        (0.0, (-9.0, 9.0), "0.00 [-9.00, +9.00]", "no difference shown"),
        (0.0041, (0.0032, 0.005), "+0.004 [+0.003, +0.005]", "better"),
        (0.3, (0.0004, 0.5996), "+0.3000 [+0.0004, +0.5996]", "better"),
        (-0.3, (-0.5, -0.1), "-0.30 [-0.50, -0.10]", "worse"),
        (0.3, (-0.1, 0.7), "+0.30 [-0.10, +0.70]", "no difference shown"),
        (-0.3, None, "-0.30", "no difference shown"),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_words_say_no_more_than_the_numbers_beside_them(
    mean: float, interval: tuple[float, float] | None, text: str, direction: str, sign: int
) -> None:
    change = Difference(mean, interval, 5)
    assert str(change) == text
    turned = {"better": "worse", "worse": "better"}
    assert direction_of(change, sign) == (direction if sign == 1 else turned.get(direction, direction))


def test_a_rounded_zero_has_no_sign() -> None:
    assert [signed(value, 2) for value in (0.0, -0.0, -1e-9, 0.004, 0.006, -10.0)] == [
        "0.00",
        "0.00",
        "0.00",
        "0.00",
        "+0.01",
        "-10.00",
    ]


def test_what_lm_eval_wants_to_fall_should_fall() -> None:
    for metric, higher in HIGHER_IS_BETTER_REGISTRY.items():
        assert MetricName("lm_eval:wikitext", metric).lower_is_better is not higher, metric
    names = map(MetricName.parse, ("heldout_loss/kl", "heldout_loss/ce", "xsum/rougeL.dola", "xsum/empty.dola"))
    assert [name for name in names if name.lower_is_better] == ["held_kl", "held_ce", "xsum_empty.dola"]


@pytest.mark.parametrize("family", ["bbq", "crows_pairs", "discrim_eval", "simple_cooccurrence_bias", "wmt2016"])
def test_what_a_task_file_of_lm_eval_wants_to_fall_should_fall(family: str) -> None:
    """Biases above all: a verdict with the wrong sign would call the worse arm better."""
    found = {
        metric: higher == "true"
        for path in sorted((official_tasks() / family).rglob("*"))
        if path.is_file() and path.suffix not in (".py", ".pyc")
        for metric, higher in ENTRY.findall(path.read_text(encoding="utf-8"))
    }
    assert not all(found.values())
    names = {metric: MetricName("lm_eval:bbq", metric) for metric in found}
    assert {metric: not name.lower_is_better for metric, name in names.items()} == found
