"""The section `lens`: where one can be from, and what it can rate."""

from __future__ import annotations

from typing import Any

from tests.conftest import TinyGrid
from tests.spec.wrong import cases, check

SHA = "ab" * 32

LENSES = {
    "a lens without answers for it": (
        {"lens": {"annotations": "jsonl", "source": "file:HERE/rows.jsonl"}, "score.tasks": ["heldout_loss"]},
        ["lens: none of the grid's tasks", "add one of cnn_dailymail, heldout_answers, nq_open, summaries, xsum"],
    ),
    "a lens of nothing": (
        {"lens": {"window": 4}},
        ["lens: has nothing to learn from", "annotations and source, own, or trained"],
    ),
    "a lens that is there and two sets to test it": (
        {
            "lens": {
                "trained": "published",
                "source": "file:HERE/rows.jsonl",
                "own": {"task": "train_answers", "metric": "hhem"},
            }
        },
        ["lens: has source, own, trained"],
    ),
    "a lens by another name": (
        {"lens": {"trained": "publised"}},
        ["lens.trained: 'publised'", "file:FOLDER, or published"],
    ),
    "a lens from elsewhere": (
        {"lens": {"trained": "hf:org/lens"}},
        ["lens.trained: 'hf:org/lens'", "file: and a folder", "`published`"],
    ),
    "a lens at an address that is no classifier": (
        {"lens": {"trained": f"https://host/lens.zip#sha256={SHA}"}},
        ["lens.trained: 'https://host/lens.zip", "classifier_*.pkl"],
    ),
    "another window for a lens that is there": (
        {"lens": {"trained": "file:HERE/lens", "window": 8}},
        ["lens.window: ", "leave it out"],
    ),
    "a lens of annotations without their file": (
        {"lens": {"annotations": "jsonl"}},
        ["lens: has annotations", "annotations and source"],
    ),
    "a lens of a repository": (
        {"lens": {"annotations": "jsonl", "source": "hf:org/annotations"}},
        ["lens.source: 'hf:org/annotations' is a repository", "one file: file:, wheel: or https:"],
    ),
    "a lens of a file and of its own answers": (
        {
            "lens": {
                "annotations": "jsonl",
                "source": "file:HERE/rows.jsonl",
                "own": {"task": "train_answers", "metric": "hhem"},
            }
        },
        ["lens: has annotations, source, own"],
    ),
    "a lens of answers to choices": (
        {"lens": {"own": {"task": "mmlu_bundled", "metric": "hhem"}}},
        ["lens.own.task: 'mmlu_bundled' gives no text to be true to", "train_answers"],
    ),
    "a lens by a metric of references": (
        {"lens": {"own": {"task": "train_answers", "metric": "rouge"}}},
        [
            "lens.own.metric: 'rouge' is not about an answer's source",
            "best_span, ",
            "hhem, judge, lettucedetect, minicheck, support_standin",
        ],
    ),
    "a lens by right answers that a task does not give": (
        {"lens": {"own": {"task": {"name": "xsum", "source": "file:HERE/xsum.jsonl"}, "metric": "best_span"}}},
        ["lens.own.metric: 'best_span' of the task 'xsum', which gives no short; another metric"],
    ),
    "a lens by a metric with a typo": (
        {"lens": {"own": {"task": "train_answers", "metric": {"name": "hhem", "bach": 2}}}},
        ["lens.own.metric.bach: ", "did you mean 'batch'?"],
    ),
    "annotations of several files": (
        {"lens": {"annotations": "ragtruth", "source": "file:HERE/rows.jsonl"}},
        ["lens.annotations: 'ragtruth' needs", "beside its file", "jsonl"],
    ),
}


@cases(LENSES)
def test_a_wrong_lens_is_named(wrong: dict[str, Any], said: list[str], tiny_grid: TinyGrid) -> None:
    check(tiny_grid.text(wrong), said)
