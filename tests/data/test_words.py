"""Words of any script: how a text is counted and cut."""

# ruff: noqa: RUF001
from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdray.data.recipes.news import news
from kdray.data.words import count_words, first_words, tokens

CHINESE = "北京大学的研究人员周二表示，他们找到了一种净化饮用水的新方法。"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't stop, 42!", ["don", "t", "stop", "42"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs and the virama are marks, not letters
        ("น้ำใจ", ["น\u0e49\u0e4d", "า", "ใ", "จ"]),
        ("GPT模型2024年", ["gpt", "模", "型", "2024", "年"]),
        ("ひらがなスーパー", ["ひ", "ら", "が", "な", "ス", "ー", "パ", "ー"]),
        ("می\u200cخواهم", ["میخواهم"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("...", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert tokens(text) == words


def test_a_text_without_spaces_is_cut_at_characters_with_their_punctuation() -> None:
    assert count_words(CHINESE) == 29
    assert first_words(CHINESE, 13) == "北京大学的研究人员周二表示，"
    assert first_words(CHINESE, 1000) == CHINESE
    assert first_words("นักวิจัยพบวิธีใหม่", 3) == "นักวิ"


def test_a_text_with_spaces_is_cut_at_them() -> None:
    assert first_words(" one  two\n\nthree ", 2) == "one  two"
    assert first_words("Xi (习近平) spoke at length today", 3) == "Xi (习近平) spoke"
    assert first_words("北京 大学 的 研究 人员", 2) == "北京 大学"  # somebody has found the words
    assert [first_words("one two", count) for count in (0, None)] == ["", "one two"]
    assert first_words(" ", 3) == ""


def test_the_recipe_news_counts_a_character_as_a_word_where_there_are_no_spaces() -> None:
    example = news({"text": CHINESE * 10, "subtitle": "净化饮用水的新方法"}, max_words=13)
    assert example is not None
    assert example.context == "北京大学的研究人员周二表示，"
    assert news({"text": CHINESE, "subtitle": "净化饮用水的新方法"}) is None


@pytest.mark.realdata
def test_english_articles_are_cut_where_their_words_between_spaces_are(data_dir: Path) -> None:
    for line in (data_dir / "cnn_dailymail.jsonl").read_text().splitlines()[:50]:
        article = json.loads(line)["article"]
        assert count_words(article) == len(article.split())
        assert first_words(article, 200).split() == article.split()[:200]
