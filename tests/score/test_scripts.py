"""Text in other scripts: what a metric cannot see has no number, and what it can see is compared by its words."""

# ruff: noqa: RUF001
from __future__ import annotations

import json
from pathlib import Path

import pytest
from rouge_score.rouge_scorer import RougeScorer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kdray.data.sentences import split
from kdray.score.answers import Answer, score_answers
from kdray.score.consistency import unknown_share, unread
from kdray.score.metrics.exact_match import exact_match
from kdray.score.metrics.meteor import meteor
from kdray.score.metrics.rouge import rouge
from kdray.score.metrics.truthful import truthful

TEXTS = {
    "Chinese": "北京大学的研究人员周二表示，他们找到了一种净化饮用水的新方法。这项工作发表在《自然》杂志上。",
    "Japanese": "東京大学の研究者は、飲み水をきれいにする新しい方法を見つけたと発表した。",
    "Russian": "Учёные Московского университета нашли новый способ очистки воды. Работа опубликована в 2019 году.",
    "Greek": "Οι επιστήμονες του πανεπιστημίου βρήκαν έναν νέο τρόπο καθαρισμού του νερού το 2019.",
    "Hindi": "विश्वविद्यालय के वैज्ञानिकों ने पीने का पानी साफ करने का नया तरीका खोजा। यह काम 2019 में छपा।",
    "Thai": "นักวิจัยของมหาวิทยาลัยพบวิธีใหม่ในการทำน้ำดื่มให้สะอาด",
    "Arabic": "وجد باحثون في الجامعة طريقة جديدة لتنقية مياه الشرب عام 2019.",
}
UNLIKE = {
    "Chinese": "昨晚的足球比赛因大雨推迟到周五举行。",
    "Russian": "Завод у реки построили в 2019 году.",
    "Hindi": "कल रात का मैच बारिश से टल गया।",
    "Thai": "ฟุตบอลเลื่อนไปวันศุกร์",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_what_rouges_own_tokeniser_does_not_see_has_no_number(text: str) -> None:
    """It gave 0, or through the year 100, to a text against itself."""
    for other in (text, "Built in 2019.", ""):
        found = rouge([Answer(other, references=[text])])[0]
        assert list(found) == ["error"]
        assert "rouge: the default tokenizer sees nothing in" in found["error"]
        assert "set tokenizer: unicode" in found["error"]


@pytest.mark.parametrize("name", TEXTS)
def test_the_words_of_any_script_are_compared(name: str) -> None:
    same = rouge([Answer(TEXTS[name], references=[TEXTS[name]])], tokenizer="unicode")[0]
    assert same == dict.fromkeys(("rougeL", "rouge1", "rouge2", "rougeLsum"), 100)
    assert (
        meteor([Answer(TEXTS[name], references=[TEXTS[name]])], synonyms=False, tokenizer="unicode")[0]["meteor"] > 99
    )
    if name in UNLIKE:
        unlike = rouge([Answer(UNLIKE[name], references=[TEXTS[name]])], tokenizer="unicode")[0]
        assert unlike["rougeL"] < 35, unlike
        assert unlike["rouge2"] < 25, unlike


def test_numbers_of_other_scripts_are_those_of_the_definition() -> None:
    """Characters without spaces, whole words with their vowel signs; neither punctuation, width, case nor form of a
    letter counts.
    """
    one = rouge([Answer("北京的大学。", references=["北京大学"])], tokenizer="unicode")[0]
    assert one["rouge1"] == pytest.approx(100 * 2 * 4 / (5 + 4))
    assert one["rouge2"] == pytest.approx(100 * 2 * 2 / (4 + 3))
    hindi = rouge([Answer("पानी साफ है", references=["पानी का नया तरीका"])], tokenizer="unicode")[0]
    assert hindi["rouge1"] == pytest.approx(100 * 2 * 1 / (3 + 4))
    for text, reference in (
        ("ＡＢＣ ２０２４", "abc 2024"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("Na\u0308he", "nähe"),
        ("Straße", "STRASSE"),
    ):
        assert rouge([Answer(text, references=[reference])], tokenizer="unicode")[0]["rougeL"] == 100, text


@pytest.mark.parametrize(
    ("reference", "seen"),
    [
        ("Für größere Häuser gäbe es Möglichkeiten", True),  # cut at its accents, as rouge-score does
        ("Tiếng Việt là ngôn ngữ của người Việt", True),
        ("Le gâteau à l'été", True),
        ("The Greek word Αθήνα means Athens", True),
        ("1999", True),
        ("２０２４", False),
        ("微软（Microsoft）宣布收购GitHub", False),  # most letters are Latin, most words are not
        ("Матч 3:2, 4:1, 6:0, 7:5", False),  # the scores are all that would count
        ("!!!", False),
    ],
)
def test_a_reference_is_refused_when_most_of_its_words_are_unseen(reference: str, seen: bool) -> None:
    found = rouge([Answer(reference, references=[reference])])[0]
    assert ("rougeL" in found) is seen
    assert not seen or found["rougeL"] == 100


def test_other_metrics_of_words_refuse_what_has_no_spaces_and_take_it_by_characters() -> None:
    answer = Answer("答案是北京", references=["北京"], wrong=["上海"])
    for metric in (meteor, exact_match):
        assert "set tokenizer: unicode" in metric([answer])[0]["error"]
    assert exact_match([answer], tokenizer="unicode")[0] == {"f1": pytest.approx(100 * 2 * 2 / (5 + 2)), "em": 0}
    assert exact_match([Answer("北京。", references=["北京"])], tokenizer="unicode")[0] == {"f1": 100, "em": 100}
    assert exact_match([Answer("", references=["！", "北京"])], tokenizer="unicode")[0] == {"f1": 0, "em": 0}
    assert exact_match([Answer("«Война и мир»", references=["война и мир"])], tokenizer="unicode")[0]["em"] == 100
    assert exact_match([Answer("война и мир", references=["Война и мир"])])[0]["em"] == 100
    assert "set tokenizer: unicode" in truthful([answer])[0]["error"]
    assert truthful([answer], tokenizer="unicode")[0] == {
        "truth": 100,
        "truth_diff": pytest.approx(100 * 2 * 2 / (5 + 2)),
    }


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (
            "А. С. Пушкин умер. Работа вышла в 2019 г. в Москве.",
            ["А. С. Пушкин умер.", "Работа вышла в 2019 г. в Москве."],
        ),
        (
            "他们找到了方法！工作发表在《自然》上。“真的？”是的",
            ["他们找到了方法！", "工作发表在《自然》上。", "“真的？”", "是的"],
        ),
        ("圆周率是３．１４。完了！？", ["圆周率是３．１４。", "完了！？"]),
        ("नया तरीका खोजा। यह काम छपा है॥ अच्छा", ["नया तरीका खोजा।", "यह काम छपा है॥", "अच्छा"]),
        ("وجد الباحثون طريقة. هل هي آمنة؟ نعم", ["وجد الباحثون طريقة.", "هل هي آمنة؟", "نعم"]),
    ],
)
def test_sentences_end_at_the_marks_of_their_script(text: str, sentences: list[str]) -> None:
    assert split(text) == sentences


def test_a_task_that_cannot_be_seen_says_so_and_single_rows_are_counted() -> None:
    kept = [
        {"example": i, "answer": text, "error": None, "question": "", "source": "s", "references": [text], "wrong": []}
        for i, text in enumerate([TEXTS["Russian"], "A plain summary", "Another one"])
    ]
    scores, rows = score_answers(kept, [rouge], count_empty=True)
    assert (scores["rougeL"]["value"], scores["rougeL"]["n"]) == (100, 2)
    assert scores["failed"]["value"] == pytest.approx(100 / 3)
    assert [row["rougeL"] for row in rows] == [None, 100, 100]
    with pytest.raises(
        ValueError, match="no answer could be scored: rouge: the default tokenizer sees nothing in 12 of the 12 words"
    ):
        score_answers(kept[:1], [rouge], count_empty=True)


def test_a_blank_reference_is_none() -> None:
    row = {
        "example": 0,
        "answer": "a",
        "error": None,
        "question": "",
        "source": "s",
        "references": ["", " \n"],
        "wrong": [],
    }
    scores, _ = score_answers([row, row | {"references": ["a"]}], [rouge], count_empty=True)
    assert (scores["rougeL"]["value"], scores["rougeL"]["n"], scores["failed"]["value"]) == (100, 1, 50)


@pytest.fixture
def narrow() -> PreTrainedTokenizerFast:
    """A tokenizer that knows three words, and has one token for all others."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "Ada": 1, "in": 2, "Rome": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


def test_what_a_metrics_model_cannot_read_has_no_number(narrow: PreTrainedTokenizerFast) -> None:
    """One unknown token is like another: to such a model all of these texts are the same."""
    assert unknown_share(narrow, "Ada in Oslo") == pytest.approx(4 / 9)
    assert unknown_share(narrow, "") == 0
    assert unread(narrow, "Ada in Rome", "Ada in Oslo") == {}
    error = unread(narrow, "Ada in Rome", "今天天气很好")["error"]
    assert error == "the metric's model cannot read it: its tokenizer knows 0% of the characters of '今天天气很好'"


@pytest.mark.slow
@pytest.mark.realdata
def test_english_and_other_latin_text_keeps_rouge_scores_own_numbers(data_dir: Path) -> None:
    scorer = RougeScorer(["rougeL", "rouge1", "rouge2", "rougeLsum"], use_stemmer=True)
    rows = [json.loads(line) for line in (data_dir / "xsum.test.jsonl").read_text().splitlines()[:100]]
    found = rouge([Answer(row["document"][:300], references=[row["summary"]]) for row in rows])
    wanted = [scorer.score(row["summary"], row["document"][:300]) for row in rows]
    assert len(found) == 100
    assert found == [{name: 100 * value.fmeasure for name, value in one.items()} for one in wanted]
