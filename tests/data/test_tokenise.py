"""From examples to tokens: the prompt that training sees is the prompt that generation starts from."""

from __future__ import annotations

import pytest

from kdray.data.example import Example
from kdray.data.recipes.columns import columns
from kdray.data.recipes.dolly import dolly
from kdray.data.recipes.news import news
from kdray.data.templates.alpaca import alpaca
from kdray.data.templates.chat import chat
from kdray.data.tokenise import tokenise
from kdray.spec.errors import InputError
from tests.tiny import write_tokenizer

EXAMPLE = Example("Where does Ada live?", "Ada is in Paris .", "Ada lives in Paris .")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.mark.parametrize("template", [chat, alpaca])
def test_prompt_response_and_eos_are_where_they_should_be(tokenizer, template):
    tokens = tokenise(EXAMPLE, template, tokenizer, 200, 256)
    prompt, response = tokens.input_ids[: tokens.n_prompt], tokens.input_ids[tokens.n_prompt :]
    assert tokenizer.decode(prompt) == template(EXAMPLE, tokenizer)
    assert tokenizer.decode(response) == EXAMPLE.response + tokenizer.eos_token
    assert prompt == tokenizer(template(EXAMPLE, tokenizer), add_special_tokens=False)["input_ids"]
    assert response.count(tokenizer.eos_token_id) == 1


def test_a_merge_over_the_border_never_changes_the_prompt(tokenizer):
    # The prompt ends in the middle of the word "lives", which is one token of this tokenizer.
    tokens = tokenise(Example("", "", "ives in Rome"), lambda example, _: "Ada l", tokenizer, 50, 60)
    assert tokens.input_ids[: tokens.n_prompt] == tokenizer("Ada l", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(tokens.input_ids[tokens.n_prompt : -1]) == "ives in Rome"


def test_long_prompts_are_dropped_and_long_responses_cut_without_eos(tokenizer):
    whole = tokenise(EXAMPLE, chat, tokenizer, 200, 256)
    assert tokenise(EXAMPLE, chat, tokenizer, whole.n_prompt, 256) == whole
    assert tokenise(EXAMPLE, chat, tokenizer, whole.n_prompt - 1, 256) is None
    cut = tokenise(EXAMPLE, chat, tokenizer, 200, len(whole.input_ids) - 1)
    assert cut.truncated
    assert cut.input_ids == whole.input_ids[:-1]
    assert not tokenise(EXAMPLE, chat, tokenizer, 200, len(whole.input_ids)).truncated


def test_an_empty_response_is_no_example(tokenizer):
    assert tokenise(Example("a", "", ""), chat, tokenizer, 200, 256) is None


def test_alpaca_has_an_input_section_only_where_there_is_a_context(tokenizer):
    assert "### Input:\nAda is in Paris .\n\n### Response:\n" in alpaca(EXAMPLE, tokenizer)
    assert alpaca(Example("Do it", "", "x"), tokenizer).endswith("### Instruction:\nDo it\n\n### Response:\n")
    assert "paired with an input" not in alpaca(Example("Do it", "", "x"), tokenizer)


def test_a_tokenizer_without_chat_template_says_what_to_use(tokenizer):
    plain = write_tokenizer_without_template(tokenizer)
    with pytest.raises(InputError, match="alpaca"):
        chat(EXAMPLE, plain)


def write_tokenizer_without_template(tokenizer):
    import copy

    plain = copy.deepcopy(tokenizer)
    plain.chat_template = None
    return plain


def test_recipes_read_their_columns():
    row = {"instruction": " do ", "context": None, "response": " done "}
    assert dolly(row) == Example("do", "", "done")
    assert columns({"q": "why", "a": "so"}, response="a", instruction="q") == Example("why", "", "so")
    assert columns({"text": "long", "a": "so"}, response="a", context="text", ask="Shorten.") == Example("Shorten.", "long", "so")


def test_news_leaves_out_what_is_short_or_damaged_and_cuts_the_rest():
    article, summary = " ".join(f"w{i}" for i in range(120)), "one two three four five six seven eight"
    assert news({"text": article, "subtitle": summary}, max_words=50).context == " ".join(f"w{i}" for i in range(50))
    assert news({"text": article, "subtitle": "too short"}) is None
    assert news({"text": " ".join(article.split()[:99]), "subtitle": summary}) is None
    assert news({"text": article + " \ufffd", "subtitle": summary}) is None
    assert news({"text": article, "subtitle": summary + ' "?'}) is None
    assert news({"text": None, "subtitle": None}) is None
