"""Components that a grid names: their parameters, and what is wrong with them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from kdray.spec.load import parse_grid
from tests.conftest import TinyGrid
from tests.spec.wrong import cases, check

NAN, INF = math.nan, math.inf

MINE = {"name": "summaries:mine", "source": "file:HERE/xsum.jsonl"}
COMPONENTS = {
    "task": ({"score.tasks": ["xsun"]}, ["score.tasks.0: no task 'xsun'", "did you mean 'xsum'?"]),
    "recipe": ({"data.recipe": "doly"}, ["data.recipe: no recipe 'doly'", "did you mean 'dolly'?"]),
    "template": ({"data.template": "chatt"}, ["data.template: no template 'chatt'", "did you mean 'chat'?"]),
    "schedule": ({"train.schedule": "cosin"}, ["train.schedule: no schedule 'cosin'", "did you mean 'cosine'?"]),
    "the teacher's schedule": ({"teacher.tune.schedule": "cosin"}, ["teacher.tune.schedule: no schedule 'cosin'"]),
    "form": ({"soft_labels.form": "hiden"}, ["soft_labels.form: no soft labels 'hiden'", "did you mean 'hidden'?"]),
    "form's parameter": (
        {"soft_labels": {"form": "hidden", "dtyp": "int8"}},
        ["soft_labels.dtyp: ", "did you mean 'dtype'?"],
    ),
    "form's type": ({"soft_labels.dtype": "int4"}, ["soft_labels.dtype: 'int4'", "must be Literal"]),
    "form's number": ({"soft_labels": {"form": "topk", "k": 0}}, ["soft_labels.k: 0", "must be int > 0"]),
    "loss": ({"objective.loss": "forwrd_kl"}, ["objective.loss: no loss 'forwrd_kl'", "did you mean 'forward_kl'?"]),
    "share": ({"objective.loss": {"name": "jsd", "beta": 1}}, ["objective.loss.beta: 1", "must be float > 0 and < 1"]),
    "a file that is no component": ({"data.recipe": "__init__"}, ["data.recipe: no recipe '__init__'"]),
    "no name": ({"data.recipe": {"max_words": 3}}, ["data.recipe: ", "write a name, or a mapping with a name"]),
    "a number": ({"data.recipe": 3}, ["data.recipe: 3", "write a name"]),
    "unknown parameter": (
        {"score.tasks": [{"name": "xsum", "limits": 3}]},
        ["score.tasks.0.limits: task 'xsum' has no such field", "did you mean 'limit'?"],
    ),
    "parameter of a component without any": (
        {"data.recipe": {"name": "dolly", "x": 1}},
        ["data.recipe.x: ", "known: none"],
    ),
    "missing parameter": (
        {"data.recipe": "columns"},
        ["data.recipe.response: missing", "'columns' needs response: str"],
    ),
    "wrong type": ({"score.tasks": [{"name": "xsum", "limit": "all"}]}, ["score.tasks.0.limit: 'all'", "must be "]),
    "bool for an integer": (
        {"score.tasks": [{"name": "xsum", "max_words": True}]},
        ["score.tasks.0.max_words: True", "must be int > 0"],
    ),
    "bool for a float": (
        {"train.schedule": {"name": "cosine", "floor": True}},
        ["train.schedule.floor: True", "must be float"],
    ),
    "nan": ({"train.schedule": {"name": "cosine", "floor": NAN}}, ["train.schedule.floor: nan", "must be float"]),
    "inf": ({"train.schedule": {"name": "cosine", "floor": INF}}, ["train.schedule.floor: inf", "must be float"]),
    "a learning rate below 0": (
        {"train.schedule": {"name": "cosine", "floor": -0.1}},
        ["train.schedule.floor: -0.1", "must be float >= 0 and <= 1"],
    ),
    "a learning rate that rises": (
        {"train.schedule": {"name": "cosine", "floor": 10}},
        ["train.schedule.floor: 10", "must be float >= 0 and <= 1"],
    ),
    "words cut from the end": (
        {"data.recipe": {"name": "news", "max_words": -5}},
        ["data.recipe.max_words: -5", "must be int > 0"],
    ),
    "list for a word": (
        {"data.recipe": {"name": "columns", "response": ["a"]}},
        ["data.recipe.response: ['a']", "must be str"],
    ),
    "an unknown engine": ({"runtime.engine": "horovod"}, ["runtime.engine: no engine 'horovod'", "known: ddp"]),
    "a decoding twice": (
        {"score.decoding": ["greedy", "greedy"]},
        ["score.decoding.1: 'greedy' a second time", "once"],
    ),
    "a task twice": (
        {"score.tasks": ["xsum", {"name": "xsum", "limit": 3}]},
        ["score.tasks.1: 'xsum' a second time", "once"],
    ),
    "a test set of one's own twice": (
        {"score.tasks": [MINE, dict(MINE)]},
        ["score.tasks.1: 'summaries:mine' a second time", "name it summaries:ANOTHER"],
    ),
    "a test set that takes another's names": (
        {"score.tasks": ["xsum", MINE | {"name": "summaries:XSUM"}]},
        ["score.tasks.1: 'summaries:XSUM', whose scores would be called as those of 'xsum'", "another name"],
    ),
    "a test set that is called as no column can be": (
        {"score.tasks": [MINE | {"name": "summaries:my reports"}]},
        ["score.tasks.0: 'summaries:my reports'", "1 to 12 letters"],
    ),
    "a metric that a test set of one's own has not": (
        {"score.tasks": [MINE], "report.primary": "summaries:mine/rouge"},
        ["report.primary: nothing measures 'summaries:mine/rouge'", "did you mean 'summaries:mine/rougeL'?"],
    ),
    "a name for a task that stands once": (
        {"score.tasks": [{"name": "xsum:mine"}]},
        ["score.tasks.0: no task 'xsum:mine'"],
    ),
    "a decoding that vllm has not": (
        {"score.engine": "vllm", "score.decoding": ["greedy", "dola"]},
        ["score.decoding.1: 'dola' with score.engine vllm", "greedy, sampled"],
    ),
    "a guided decoding of what has no text": (
        {
            "score.tasks": ["xsum", {"name": "truthfulqa", "source": "file:HERE/t.csv"}],
            "score.decoding": ["greedy", {"name": "lookback_guided", "guide": "support"}],
        },
        ["score.decoding.1: 'lookback_guided' of the task 'truthfulqa'", "needs tasks with a source"],
    ),
    "a metric of citations where nothing cites": (
        {"score.metrics": ["chrf", "citations"], "score.decoding": ["greedy", "sampled"]},
        ["score.metrics.1: 'citations', but no decoding cites; add selfcite to score.decoding"],
    ),
    "a decoding that cites what has no text": (
        {"score.tasks": ["xsum", {"name": "truthfulqa", "source": "file:HERE/t.csv"}], "score.decoding": ["selfcite"]},
        ["score.decoding.0: 'selfcite' of the task 'truthfulqa'", "needs tasks with a source"],
    ),
}


@cases(COMPONENTS)
def test_a_wrong_component_is_named(wrong: dict[str, Any], said: list[str], tiny_grid: TinyGrid) -> None:
    check(tiny_grid.text(wrong), said)


def test_a_component_gets_all_its_parameters(tiny_grid: TinyGrid) -> None:
    grid = parse_grid(
        tiny_grid.text({"train.schedule": {"name": "cosine"}, "score.tasks": [{"name": "heldout_loss", "limit": 3}]})
    )
    assert grid.train.schedule.params == {"floor": 0.0}
    assert grid.score.tasks[0].params == {"limit": 3}


@pytest.mark.parametrize("floor", ["0", "0.0", "-0.0"])
def test_a_float_parameter_is_a_float_however_it_is_written(floor: str, tiny_grid: TinyGrid) -> None:
    schedule = f"{{name: cosine, floor: {floor}}}"
    grid = parse_grid(tiny_grid.text({"train.schedule": "SCHEDULE"}).replace("SCHEDULE", schedule))
    assert repr(grid.train.schedule.params) == "{'floor': 0.0}"
