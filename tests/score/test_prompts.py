"""Prompts: forms by id, texts cut to fit, and stops that cannot leave an answer empty."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from kdray.data.templates import open_template
from kdray.data.templates.alpaca import alpaca
from kdray.score.prompts import cut_at_stop, stops_of, task_prompts
from kdray.spec.components import bind
from kdray.spec.errors import InputError
from kdray.spec.refs import parse_reference
from kdray.store import Outer
from tests.tiny import write_tokenizer

ARTICLE = "Ada is in Paris .\n\nBen lives in Rome now . Cleo is in Oslo ."


@pytest.fixture
def tokenizer(tmp_path: Path):
    return write_tokenizer(tmp_path / "model")


def prompts(tmp_path: Path, tokenizer: Any, name: str, row: dict[str, Any], room: int | None = None, **params: Any):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    source = f"file:{path}"
    bound = bind("task", name, {"source": source, **params}, "task")
    return task_prompts(name, bound, parse_reference(source), Outer(tmp_path / "store"), tokenizer, alpaca, room)


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("lm_eval", f"Summarize the following article:\n\n{ARTICLE}\n\nSummary:"),
        ("leaderboard", f"Article: {ARTICLE}\nSummarize the article in one sentence. Summary:"),
        ("chat", f"<|im_start|>user\nSummarize the article in one sentence.\n\n{ARTICLE}<|im_end|>\n<|im_start|>assistant\n"),
    ],
)
def test_a_prompt_is_the_form_that_its_id_names(prompt, wanted, tmp_path, tokenizer):
    (made,) = prompts(tmp_path, tokenizer, "xsum", {"document": ARTICLE, "summary": "s"}, prompt=prompt)
    assert tokenizer.decode(made.input_ids) == wanted
    assert (made.source, made.references) == (ARTICLE, ["s"])


def test_two_shots_come_before_the_question_and_the_grids_template_is_the_default(tmp_path, tokenizer):
    row = {"article": ARTICLE, "highlights": "h"}
    (shots,) = prompts(tmp_path, tokenizer, "cnn_dailymail", row, prompt="leaderboard_2shot")
    text = tokenizer.decode(shots.input_ids)
    assert text.count("Document: ") == text.count("\nSummary:") == 3
    assert text.endswith(f"Document: {ARTICLE}\nSummary:")
    (plain,) = prompts(tmp_path, tokenizer, "cnn_dailymail", row)
    assert "### Input:\n" in tokenizer.decode(plain.input_ids)


def test_an_article_loses_its_end_and_never_instruction_or_lead(tmp_path, tokenizer):
    row = {"document": ARTICLE * 20, "summary": "s"}
    whole = prompts(tmp_path, tokenizer, "xsum", row, prompt="lm_eval")[0]
    room = len(whole.input_ids) // 2
    (made,) = prompts(tmp_path, tokenizer, "xsum", row, prompt="lm_eval", room=room)
    assert len(made.input_ids) <= room
    text = tokenizer.decode(made.input_ids)
    assert text.startswith("Summarize the following article:\n\nAda is in Paris .\n\nBen")
    assert text.endswith("\n\nSummary:")
    assert made.source in text
    more = " ".join([made.source, (ARTICLE * 20)[len(made.source) :].split()[0]])
    assert len(tokenizer(f"Summarize the following article:\n\n{more}\n\nSummary:")["input_ids"]) > room, "a word more would have fitted"


def test_without_room_for_the_instruction_itself_it_is_an_error(tmp_path, tokenizer):
    with pytest.raises(InputError, match=r"score\.tasks\.xsum\.max_new_tokens: a prompt of \d+ tokens without its text \(row 0\)"):
        prompts(tmp_path, tokenizer, "xsum", {"document": ARTICLE, "summary": "s"}, prompt="lm_eval", room=5)


def test_words_are_cut_where_the_task_says(tmp_path, tokenizer):
    (made,) = prompts(tmp_path, tokenizer, "xsum", {"document": ARTICLE, "summary": "s"}, max_words=6)
    assert made.source == "Ada is in Paris .\n\nBen"


def test_a_missing_column_is_named(tmp_path, tokenizer):
    with pytest.raises(InputError, match="no column 'document'"):
        prompts(tmp_path, tokenizer, "xsum", {"article": ARTICLE, "summary": "s"})


def test_truthfulqa_reads_the_hubs_columns_and_the_authors_table(tmp_path, tokenizer):
    hub = {"question": "Q?", "correct_answers": ["a", "b"], "incorrect_answers": ["c"]}
    table = {"Question": "Q?", "Correct Answers": "a; b;", "Incorrect Answers": "c"}
    made = [prompts(tmp_path, tokenizer, "truthfulqa", row, prompt="qa")[0] for row in (hub, table)]
    assert made[0] == made[1]
    assert (made[0].references, made[0].wrong, made[0].question, made[0].source) == (["a", "b"], ["c"], "Q?", "")
    assert tokenizer.decode(made[0].input_ids).endswith("\n\nQ: Q?\nA:")


def test_hotpotqa_shows_all_passages_and_the_question(tmp_path, tokenizer):
    row = {"question": "Who?", "answer": "Ada", "context": {"title": ["One", "Two"], "sentences": [["It is.", " So."], ["Ada."]]}}
    (made,) = prompts(tmp_path, tokenizer, "hotpotqa", row, prompt="qa")
    assert made.source == "One: It is. So.\nTwo: Ada."
    assert tokenizer.decode(made.input_ids).endswith("in a few words. Question: Who?\nAnswer:")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\n\n Ada is in Paris .\nBen", "Ada is in Paris ."),  # the trap: a stop before the first word ends nothing
        ("Ada\n", "Ada"),
        ("Ada is", "Ada is"),
        ("\n\n", ""),
    ],
)
def test_a_stop_counts_only_behind_the_first_word(text, answer, tokenizer):
    ids = tokenizer(text)["input_ids"]
    cut, found = cut_at_stop(ids, ["\n"], tokenizer)
    assert found == answer
    assert cut == ids[: len(cut)]
    assert tokenizer.decode(cut).strip().startswith(answer)
    if "\n" in text.strip():
        assert "\n" not in tokenizer.decode(cut[:-1]).lstrip()


def test_stops_belong_to_plain_forms():
    assert stops_of("xsum", {"prompt": "leaderboard"}) == ["\n"]
    assert stops_of("xsum", {"prompt": "template"}) == stops_of("heldout_answers", {}) == []


@pytest.mark.parametrize("prompt", ["lm_eval", "leaderboard", "leaderboard_2shot", "template", "chat"])
def test_no_prompt_ends_in_eos(prompt: str, tmp_path: Path, tokenizer: Any) -> None:
    row = {"document": ARTICLE, "summary": "s"}
    (plain,) = prompts(tmp_path, tokenizer, "xsum", row, prompt=prompt)
    special = [("<|im_start|>", 0), ("<|im_end|>", 1)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<|im_start|> $A <|im_end|>", special_tokens=special)
    (ended,) = prompts(tmp_path, tokenizer, "xsum", row, prompt=prompt)
    begin = [] if prompt in ("template", "chat") else [0]  # templates write theirs themselves
    assert ended.input_ids == [*begin, *plain.input_ids]
    assert ended.input_ids[-1] != tokenizer.eos_token_id


def test_a_row_that_the_chat_template_refuses_is_refused_alone(tmp_path: Path, tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% if 'Ben' in messages[0]['content'] %}{{ raise_exception('no Ben') }}{% endif %}{{ messages[0]['content'] }}"
    )
    path = tmp_path / "rows.jsonl"
    rows = [{"document": name, "summary": "s"} for name in ("Ada", "Ben", "Cleo")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    bound = bind("task", "xsum", {"source": f"file:{path}", "prompt": "chat"}, "task")
    ref = parse_reference(bound["source"])
    made = task_prompts("xsum", bound, ref, Outer(tmp_path / "store"), tokenizer, alpaca, None)
    assert [bool(prompt.input_ids) for prompt in made] == [True, False, True]
    assert made[1].refused == (
        "score.tasks.xsum.prompt: chat, but the model's chat template cannot write this prompt (no Ben); use another prompt"
    )
    assert made[0].refused is None
    path.write_text(json.dumps(rows[1]) + "\n")
    with pytest.raises(InputError, match=r"^score\.tasks\.xsum\.prompt: chat, but .*no Ben"):
        task_prompts("xsum", bound, ref, Outer(tmp_path / "other"), tokenizer, alpaca, None)


def test_a_chat_prompt_is_given_what_the_grid_gives_its_template(tmp_path: Path, tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ messages[0]['content'] }}{% if loud %}!{% endif %}"
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"document": "Ada", "summary": "s"}) + "\n")
    bound = bind("task", "xsum", {"source": f"file:{path}", "prompt": "chat"}, "task")
    given = open_template({"name": "chat", "params": {"arguments": {"loud": True}}})
    texts = []
    for template in (given, alpaca):
        (made,) = task_prompts("xsum", bound, parse_reference(bound["source"]), Outer(tmp_path / "store"), tokenizer, template, None)
        texts.append(tokenizer.decode(made.input_ids))
    assert texts[0] == f"{texts[1]}!"
