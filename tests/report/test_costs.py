"""Tokens a second of decodings, compared over what both have answered."""

from __future__ import annotations

from kdray.plan import make_plan
from kdray.report.costs import costs
from kdray.spec import load_grid
from kdray.store import Outer, Store


def test_decodings_are_compared_where_both_have_answered(tiny_grid):
    path = tiny_grid({"score.decoding": ["greedy", "dola"], "teacher": {"model": f"file:{tiny_grid.folder}/teacher"}})
    grid = load_grid(path)
    store = Store(grid.runtime.store)
    plan = make_plan(grid, Outer(store.root))
    assert list(costs(plan.scores, store)) == []
    steps = {(s.subject, s.task.name, s.decoding): s.generate for s in plan.scores if s.generate}

    def seal(subject, decoding, tokens, seconds):
        step = steps[subject, "xsum", decoding]
        store.begin(step.key, step.payload).seal([], answer_tokens=tokens, answer_seconds=seconds)

    seal("student", "greedy", 100, 2.0)
    seal("teacher", "greedy", 100, 50.0)
    assert list(costs(plan.scores, store)) == []
    seal("student", "dola", 60, 3.0)
    assert list(costs(plan.scores, store)) == ["dola: 20.0 tokens/s, greedy 50.0: a token costs 2.50 times as much"]
