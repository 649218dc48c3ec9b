"""SmolLM2 answers rows of the real data sets, and the metrics find what must be there."""

from __future__ import annotations

import pytest

from kdray.data.templates.chat import chat
from kdray.models.generation import generate_greedy
from kdray.models.load import load_folder
from kdray.score.answers import Given, load_metric, score_answers
from kdray.score.prompts import cut_at_stop, stops_of, task_prompts
from kdray.spec import declare
from kdray.spec.components import bind
from kdray.spec.metrics import metrics_of
from kdray.spec.refs import parse_reference
from kdray.spec.sections.base import Use
from kdray.store import Outer

TASKS = {
    "xsum": ("xsum.test.jsonl", "leaderboard"),
    "cnn_dailymail": ("cnn_dailymail.jsonl", "chat"),
    "truthfulqa": ("truthfulqa/TruthfulQA.csv", "qa"),
    "hotpotqa": ("hotpotqa_distractor.validation.jsonl", "chat"),
    "nq_open": ("nq_open_oracle.jsonl", "lookback_lens"),
}


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("name", TASKS)
def test_smollm2_answers_real_rows(name, smollm2, data_dir, tmp_path):
    file, prompt = TASKS[name]
    params = {"source": f"file:{data_dir / file}", "limit": 2, "prompt": prompt, "max_new_tokens": 16}
    params |= {"max_words": 60} if name in ("xsum", "cnn_dailymail") else {}
    bound = bind(declare.Task, name, params, "task")
    model, tokenizer = load_folder(smollm2)
    prompts = task_prompts(
        name, bound, parse_reference(bound["source"]), Outer(tmp_path / "store"), tokenizer, chat, 700
    )
    assert all(len(p.input_ids) <= 700 for p in prompts)
    answers = generate_greedy(model, tokenizer, [p.input_ids for p in prompts], 16)
    texts = [cut_at_stop(ids, stops_of(name, bound), tokenizer)[1] for ids in answers]
    kept = [vars(p) | {"answer": text, "error": None} for p, text in zip(prompts, texts, strict=True)]
    uses = metrics_of(Use.model_construct(name=name, params=bound), [])
    scores, _ = score_answers(kept, [load_metric(use.name, use.params, Given({})) for use in uses], count_empty=True)
    assert scores["empty"]["value"] == 0, "the prompt's form has caught the model in the blank line"
    assert all(0 <= score["value"] <= 100 for metric, score in scores.items() if metric != "truth_diff")
    own = [vars(p) | {"answer": p.references[0], "error": None} for p in prompts]
    best, _ = score_answers(own, [load_metric(use.name, use.params, Given({})) for use in uses], count_empty=True)
    headline = {"truthfulqa": "truth", "hotpotqa": "f1", "nq_open": "span_em"}.get(name, "rougeL")
    assert best[headline]["value"] == pytest.approx(100)
