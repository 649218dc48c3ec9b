"""Prompts: forms by id, texts cut to fit, and stops that cannot leave an answer empty."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from kdray.data.templates import open_template
from kdray.data.templates.alpaca import alpaca
from kdray.score.metrics.rouge import rouge
from kdray.score.prompts import cut_at_stop, stops_of, task_prompts, unseen_by
from kdray.spec import declare
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
    return prompts_of(tmp_path, tokenizer, name, [row], room, **params)


def prompts_of(
    tmp_path: Path, tokenizer: Any, name: str, rows: list[dict[str, Any]], room: int | None = None, **params: Any
):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = f"file:{path}"
    bound = bind(declare.Task, name, {"source": source, **params}, "task")
    return task_prompts(name, bound, parse_reference(source), Outer(tmp_path / "store"), tokenizer, alpaca, room)


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("lm_eval", f"Summarize the following article:\n\n{ARTICLE}\n\nSummary:"),
        ("leaderboard", f"Article: {ARTICLE}\nSummarize the article in one sentence. Summary:"),
        ("paper", f"Article: {ARTICLE}\nSummarize the article in one sentence. Summary:"),
        (
            "lookback_lens",
            f"Generate a summary comprising of 1 sentence for the given article.\n\n#Article#: {ARTICLE}\n#Summary#:",
        ),
        (
            "chat",
            f"<|im_start|>user\nSummarize the article in one sentence.\n\n{ARTICLE}<|im_end|>\n<|im_start|>assistant\n",
        ),
    ],
)
def test_a_prompt_is_the_form_that_its_id_names(prompt, wanted, tmp_path, tokenizer):
    (made,) = prompts(tmp_path, tokenizer, "xsum", {"document": ARTICLE, "summary": "s"}, prompt=prompt)
    assert tokenizer.decode(made.input_ids) == wanted
    assert (made.source, made.references) == (ARTICLE, ["s"])


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("paper", f"Article: {ARTICLE}\nSummarize the article. Summary:"),
        ("leaderboard", f"Article: {ARTICLE}\nSummarize the article. Summary:"),
        (
            "lookback_lens",
            f"Generate a summary based on the information in the document.\n\n#Document#: {ARTICLE}\n#Summary#:",
        ),
    ],
)
def test_the_other_news_has_forms_of_the_same_names(prompt: str, wanted: str, tmp_path: Path, tokenizer: Any) -> None:
    (made,) = prompts(tmp_path, tokenizer, "cnn_dailymail", {"article": ARTICLE, "highlights": "h"}, prompt=prompt)
    assert tokenizer.decode(made.input_ids) == wanted


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
    assert len(tokenizer(f"Summarize the following article:\n\n{more}\n\nSummary:")["input_ids"]) > room, (
        "a word more would have fitted"
    )


LONG = ARTICLE * 100  # some 1,500 words
ROW = {"xsum": {"document": LONG, "summary": "s"}, "cnn_dailymail": {"article": LONG, "highlights": "s"}}
FORMS = ["template", "chat", "lm_eval", "paper", "leaderboard", "leaderboard_2shot", "lookback_lens"]


@pytest.mark.parametrize("prompt", FORMS)
@pytest.mark.parametrize("name", ["xsum", "cnn_dailymail"])
def test_an_article_that_is_not_shortened_is_cut_to_the_window_and_counted(
    name: str, prompt: str, tmp_path: Path, tokenizer: Any
) -> None:
    (whole,) = prompts(tmp_path, tokenizer, name, ROW[name], prompt=prompt, max_words=None)
    assert (whole.source, whole.cut) == (LONG, False)
    before, after = tokenizer.decode(whole.input_ids).split(LONG)
    room = len(whole.input_ids) - 400
    (made,) = prompts(tmp_path, tokenizer, name, ROW[name], room, prompt=prompt, max_words=None)
    assert made.cut
    assert room - 20 < len(made.input_ids) <= room
    assert LONG.startswith(made.source)
    assert tokenizer.decode(made.input_ids) == f"{before}{made.source}{after}"
    (exact,) = prompts(tmp_path, tokenizer, name, ROW[name], len(whole.input_ids), prompt=prompt, max_words=None)
    assert exact == whole
    (shortened,) = prompts(tmp_path, tokenizer, name, ROW[name], len(whole.input_ids), prompt=prompt)
    assert (len(shortened.source.split()), shortened.cut) == (700, False)  # by its words, which the window has room for


def test_a_refused_row_is_not_counted_as_cut(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"document": "x" * 500, "summary": "s"}, USABLE["xsum"]]
    assert [prompt.cut for prompt in prompts_of(tmp_path, tokenizer, "xsum", rows, room=350)] == [False, False]


def test_without_room_for_the_instruction_itself_it_is_an_error(tmp_path, tokenizer):
    with pytest.raises(
        InputError, match=r"score\.tasks\.xsum\.max_new_tokens: a prompt of \d+ tokens without its text \(row 0\)"
    ):
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
    row = {
        "question": "Who?",
        "answer": "Ada",
        "context": {"title": ["One", "Two"], "sentences": [["It is.", " So."], ["Ada."]]},
    }
    (made,) = prompts(tmp_path, tokenizer, "hotpotqa", row, prompt="qa")
    assert made.source == "One: It is. So.\nTwo: Ada."
    assert tokenizer.decode(made.input_ids).endswith("in a few words. Question: Who?\nAnswer:")


def test_appendix_b_asks_as_its_students_were_trained(tmp_path, tokenizer):
    context = {"title": ["One"], "sentences": [["It is.", " So."]]}
    asked = {
        "hotpotqa": (
            {"question": "Who?", "answer": "Ada", "context": context},
            "Context: One: It is. So.\nQuestion: Who?",
        ),
        "truthfulqa": (
            {"question": "Who?", "correct_answers": ["a"], "incorrect_answers": ["c"]},
            "Context: No context\nQuestion: Who?",
        ),
        "cnn_dailymail": ({"article": ARTICLE, "highlights": "h"}, f"Dialogue: {ARTICLE}"),
    }
    for task, (row, text) in asked.items():
        (made,) = prompts(tmp_path, tokenizer, task, row, prompt="appendix_b")
        assert tokenizer.decode(made.input_ids) == f"{text}\n{'Summary' if 'cnn' in task else 'Answer'}:"


PASSAGES = [["One", ["It is.", " So."]], ["Two", ["Ada."]]]


def test_hotpotqa_is_read_as_its_authors_wrote_it(tmp_path, tokenizer):
    row = {"question": "Who?", "answer": "Ada"}
    titles, sentences = zip(*PASSAGES, strict=True)
    hub = prompts(tmp_path, tokenizer, "hotpotqa", row | {"context": {"title": titles, "sentences": sentences}})
    theirs = prompts(tmp_path, tokenizer, "hotpotqa", row | {"context": PASSAGES})
    assert theirs == hub
    assert theirs[0].source == "One: It is. So.\nTwo: Ada."


NQ = {
    "question": "who lives in rome",
    "answers": ["Ben", "Ben Bo"],
    "ctxs": [{"title": "Rome", "text": "Ben lives in Rome now .", "isgold": True}],
}
ROME = "Ben lives in Rome now ."


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        (
            "lookback_lens",
            (
                "Answer the question based on the information in the document. Explain your reasoning in the document"
                f" step-by-step before providing the final answer.\n\n#Document#: {ROME}\n#Question#: Who lives in"
                " rome?\n#Answer#:"
            ),
        ),
        (
            "chat",
            (
                "<|im_start|>user\nAnswer the question from this text, in a few words. Question: Who lives in rome?\n\n"
                f"{ROME}<|im_end|>\n<|im_start|>assistant\n"
            ),
        ),
    ],
)
def test_nq_shows_the_gold_passage_and_the_question(prompt, wanted, tmp_path, tokenizer):
    others = [{"title": "Oslo", "text": "Cleo is in Oslo .", "isgold": False}]
    (made,) = prompts(tmp_path, tokenizer, "nq_open", NQ | {"ctxs": others + NQ["ctxs"] + others}, prompt=prompt)
    assert tokenizer.decode(made.input_ids) == wanted
    assert (made.source, made.question, made.references) == (ROME, "Who lives in rome?", ["Ben", "Ben Bo"])
    unmarked = [{"text": "Cleo is in Oslo ."}, {"text": ROME}]
    assert prompts(tmp_path, tokenizer, "nq_open", NQ | {"ctxs": unmarked})[0].source == f"Cleo is in Oslo .\n{ROME}"
    odd = prompts(tmp_path, tokenizer, "nq_open", NQ | {"question": "what is {text}?"}, prompt="lookback_lens")[0]
    assert tokenizer.decode(odd.input_ids).count(ROME) == 1  # what is asked is no place for the text


USABLE: dict[str, dict[str, Any]] = {
    "nq_open": NQ,
    "xsum": {"document": ARTICLE, "summary": "s"},
    "cnn_dailymail": {"article": ARTICLE, "highlights": "s"},
    "hotpotqa": {"question": "Who?", "answer": "Ada", "context": PASSAGES},
    "truthfulqa": {"question": "Q?", "correct_answers": ["a"], "incorrect_answers": ["b"]},
}


@pytest.mark.parametrize(
    ("name", "broken", "reason"),
    [
        ("xsum", {"document": None}, "nothing in column 'document'"),
        ("xsum", {"document": "\n "}, "nothing in column 'document'"),
        ("xsum", {"document": 1.5}, "column 'document' holds the float 1.5, not a text"),
        ("xsum", {"document": [["a"]]}, "column 'document' holds the list [['a']], not a text"),
        ("xsum", {"summary": ["one", "two"]}, "column 'summary' holds 2 texts, not one"),
        ("cnn_dailymail", {"article": []}, "nothing in column 'article'"),
        ("hotpotqa", {"context": None}, "column 'context' holds nothing, not titles with their sentences"),
        ("hotpotqa", {"context": []}, "nothing in column 'context'"),
        ("hotpotqa", {"context": [["One"]]}, "column 'context' holds a list, not titles with their sentences"),
        ("hotpotqa", {"question": None}, "nothing in column 'question'"),
        ("hotpotqa", {"answer": True}, "column 'answer' holds the bool True, not a text"),
        ("nq_open", {"ctxs": None}, "column 'ctxs' holds nothing, not passages with a text"),
        ("nq_open", {"ctxs": ["text"]}, "column 'ctxs' holds a list, not passages with a text"),
        ("nq_open", {"ctxs": [{"text": " "}]}, "nothing in column 'ctxs'"),
        ("nq_open", {"question": " "}, "nothing in column 'question'"),
        ("truthfulqa", {"question": ""}, "nothing in column 'question'"),
        ("truthfulqa", {"correct_answers": [1.5]}, "column 'correct_answers' holds the float 1.5, not a text"),
    ],
)
def test_a_row_that_cannot_be_asked_is_refused_and_the_others_are_asked(name, broken, reason, tmp_path, tokenizer):
    """All of these ended the run, most of them with a TypeError."""
    refused, asked = prompts_of(tmp_path, tokenizer, name, [USABLE[name] | broken, USABLE[name]])
    assert (refused.example, refused.refused, refused.input_ids) == (0, reason, [])
    assert (asked.example, asked.refused) == (1, None)
    assert asked.references
    with pytest.raises(InputError, match=re.escape(reason)):
        prompts_of(tmp_path, tokenizer, name, [USABLE[name] | broken])


@pytest.mark.parametrize(
    ("name", "row", "references", "wrong"),
    [
        ("xsum", {"summary": None}, [], []),
        ("xsum", {"summary": " "}, [], []),
        ("xsum", {"summary": ["one"]}, ["one"], []),
        ("cnn_dailymail", {"highlights": ["one .", "two ."]}, ["one .\ntwo ."], []),
        ("hotpotqa", {"answer": 1969}, ["1969"], []),
        ("hotpotqa", {"answer": ["Ada", None, "Ben"]}, ["Ada", "Ben"], []),
        ("truthfulqa", {"correct_answers": None}, [], ["b"]),
        ("truthfulqa", {"incorrect_answers": ["b", None, " "]}, ["a"], ["b"]),
        ("truthfulqa", {"correct_answers": "one; two"}, ["one", "two"], ["b"]),  # it was read letter by letter
    ],
)
def test_answers_that_are_given_are_read_and_none_are_made_up(name, row, references, wrong, tmp_path, tokenizer):
    made = prompts_of(tmp_path, tokenizer, name, [USABLE[name] | row, USABLE[name]])[0]
    assert (made.refused, made.references, made.wrong) == (None, references, wrong)


def test_a_document_in_paragraphs_is_one_text(tmp_path, tokenizer):
    (made,) = prompts(
        tmp_path,
        tokenizer,
        "xsum",
        USABLE["xsum"] | {"document": ["Ada is in Paris .", "", " Ben lives in Rome now ."]},
    )
    assert made.source == "Ada is in Paris .\nBen lives in Rome now ."


def test_a_row_without_room_is_refused_alone(tmp_path, tokenizer):
    rows = [
        {"question": "Where is Ada ? " * 40, "correct_answers": ["a"], "incorrect_answers": ["b"]},
        USABLE["truthfulqa"],
    ]
    long, short = prompts_of(tmp_path, tokenizer, "truthfulqa", rows, room=200)
    assert re.search(r"a prompt of \d+ tokens without its text \(row 0\)", long.refused)
    assert short.refused is None


def test_a_text_without_spaces_loses_its_end_and_not_all_of_itself(tmp_path, tokenizer):
    chinese = "北京大学的研究人员找到了一种净化饮用水的新方法。" * 5
    row = {"document": chinese, "summary": "s"}
    whole = prompts(tmp_path, tokenizer, "xsum", row, prompt="lm_eval")[0]
    room = len(whole.input_ids) - 100
    (made,) = prompts(tmp_path, tokenizer, "xsum", row, prompt="lm_eval", room=room)
    assert len(made.input_ids) <= room
    assert chinese.startswith(made.source)
    assert 20 < len(made.source) < len(chinese)
    more = chinese[: len(made.source) + 2]
    assert len(tokenizer(f"Summarize the following article:\n\n{more}\n\nSummary:")["input_ids"]) > room
    assert len(prompts(tmp_path, tokenizer, "xsum", row, max_words=30)[0].source) in (31, 32)  # with its full stop


def test_a_text_of_which_no_word_fits_is_refused(tmp_path, tokenizer):
    rows = [{"document": "x" * 500, "summary": "s"}, USABLE["xsum"]]
    refused, _ = prompts_of(tmp_path, tokenizer, "xsum", rows, room=350)
    assert "a prompt with no word of its text (row 0)" in refused.refused


def test_a_metric_that_does_not_see_the_references_is_found_out_before_a_model_is_asked(tmp_path, tokenizer):
    hindi = {"document": ARTICLE, "summary": "नदी में बाढ़ 2019 में आई।"}
    made = prompts_of(tmp_path, tokenizer, "xsum", [hindi, {"document": ARTICLE, "summary": None}])
    assert "set tokenizer: unicode" in unseen_by(rouge, made)
    assert unseen_by(functools.partial(rouge, tokenizer="unicode"), made) is None
    assert unseen_by(rouge, prompts_of(tmp_path, tokenizer, "xsum", [hindi, USABLE["xsum"]])) is None
    assert unseen_by(rouge, made[1:]) is None  # nothing to compare with is told row by row


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
    for task in ("xsum", "cnn_dailymail"):
        assert stops_of(task, {"prompt": "leaderboard"}) == stops_of(task, {"prompt": "paper"}) == ["\n"]
        assert {"#Document#:", "#Article#:"} < set(stops_of(task, {"prompt": "lookback_lens"}))
    assert stops_of("xsum", {"prompt": "template"}) == stops_of("heldout_answers", {}) == []


@pytest.mark.parametrize("prompt", FORMS)
def test_no_prompt_ends_in_eos(prompt: str, tmp_path: Path, tokenizer: Any) -> None:
    row = {"document": ARTICLE, "summary": "s"}
    (plain,) = prompts(tmp_path, tokenizer, "xsum", row, prompt=prompt)
    special = [("<|im_start|>", 0), ("<|im_end|>", 1)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=special
    )
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
    bound = bind(declare.Task, "xsum", {"source": f"file:{path}", "prompt": "chat"}, "task")
    ref = parse_reference(bound["source"])
    made = task_prompts("xsum", bound, ref, Outer(tmp_path / "store"), tokenizer, alpaca, None)
    assert [bool(prompt.input_ids) for prompt in made] == [True, False, True]
    assert (
        made[1].refused
        == "score.tasks.xsum.prompt: chat, but the model's chat template cannot write this prompt (no Ben); use another"
        " prompt"
    )
    assert made[0].refused is None
    path.write_text(json.dumps(rows[1]) + "\n")
    with pytest.raises(InputError, match=r"^score\.tasks\.xsum\.prompt: chat, but .*no Ben"):
        task_prompts("xsum", bound, ref, Outer(tmp_path / "other"), tokenizer, alpaca, None)


def test_a_chat_prompt_is_given_what_the_grid_gives_its_template(tmp_path: Path, tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ messages[0]['content'] }}{% if loud %}!{% endif %}"
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"document": "Ada", "summary": "s"}) + "\n")
    bound = bind(declare.Task, "xsum", {"source": f"file:{path}", "prompt": "chat"}, "task")
    given = open_template({"name": "chat", "params": {"arguments": {"loud": True}}})
    texts = []
    for template in (given, alpaca):
        (made,) = task_prompts(
            "xsum", bound, parse_reference(bound["source"]), Outer(tmp_path / "store"), tokenizer, template, None
        )
        texts.append(tokenizer.decode(made.input_ids))
    assert texts[0] == f"{texts[1]}!"
