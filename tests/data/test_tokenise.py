"""From examples to tokens: the prompt that training sees is the prompt that generation starts from."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from tokenizers.processors import TemplateProcessing

from kdray.data.example import Document, Example
from kdray.data.templates.alpaca import alpaca
from kdray.data.templates.chat import DATE, chat
from kdray.data.templates.plain import plain
from kdray.data.tokenise import Beyond, Tokenised, plain_prompt
from kdray.data.tokenise import tokenise as tokenise_all
from kdray.models.load import load_tokenizer
from kdray.spec.errors import InputError
from tests.tiny import write_encoder_decoder, write_tokenizer

EXAMPLE = Example("Where does Ada live?", "Ada is in Paris .", "Ada lives in Paris .")


def tokenise(example, *settings):
    """What one example becomes; None if that is nothing."""
    rows = tokenise_all([example], *settings)[0]
    return rows[0] if rows else None


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


@pytest.mark.parametrize(
    "template",
    [
        "  {%- if not date_string is defined %}\n    {%- if strftime_now is defined %}\n"  # as Llama-3.2's
        "        {%- set date_string = strftime_now('%d %b %Y') %}\n    {%- else %}\n        {%- set date_string = 'no'"
        " %}\n"
        "    {%- endif %}\n{%- endif %}\nToday Date: {{ date_string }}\n\n{{ messages[0]['content'] }}",
        "  {% set today = strftime_now(format='%-d %B %Y, %H:%M:%S') %}\n  {{ today }}\n\n{{ messages[0]['content'] }}",
        "\n{% macro at() %}{% if true %}{{ strftime_now('%Y-%m-%d %A') }}{% endif %}{% endmacro %}{{ at() }}"
        "{{ messages[0]['content'] }}",
    ],
)
def test_a_chat_template_prints_one_date_for_ever(
    template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = write_tokenizer(tmp_path)
    tokenizer.chat_template = template
    prompt = chat(Example("say", "", "x"), tokenizer)
    turns = [{"role": "user", "content": "say"}]
    assert prompt != tokenizer.apply_chat_template(turns, tokenize=False)
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", type("Then", (), {"now": lambda: DATE}))
    assert prompt == tokenizer.apply_chat_template(turns, tokenize=False)  # to the byte, on that day
    assert tokenizer.chat_template == template


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


def test_many_at_once_give_what_each_gives_alone(tokenizer):
    examples = [EXAMPLE, Example("", "", ""), Example("Do it", "", "x" * 300), Example("a " * 200, "", "b")]
    examples.insert(3, Document("Ada is in Rome . " * 40))
    alone = [tokenise_all([example], chat, tokenizer, 200, 64)[0] for example in examples]
    assert [len(rows) for rows in alone] == [1, 0, 1, 4, 0]
    assert tokenise_all(examples, chat, tokenizer, 200, 64) == alone
    assert tokenise_all([], chat, tokenizer, 200, 64) == []


@pytest.mark.parametrize("max_length", [2, 3, 7, 29, 30, 31, 32, 200])
def test_every_token_of_a_document_but_the_first_is_learned_once_and_it_ends_once(tokenizer, max_length):
    text = " Ada lives in Paris .\n" * 4 + "  "
    whole = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert len(whole) == 31  # one piece of 31 tokens; two pieces of 30
    pieces = tokenise_all([Document(text)], alpaca, tokenizer, 1, max_length)[0]
    assert [token for piece in pieces for token in piece.input_ids[piece.n_prompt :]] == whole[1:]
    assert pieces[0].input_ids[0] == whole[0]
    for piece, following in itertools.pairwise(pieces):
        assert len(piece.input_ids) == max_length
        assert piece.input_ids[-1] == following.input_ids[0]
        assert tokenizer.eos_token_id not in piece.input_ids
    assert all(piece.n_prompt == 1 and not piece.truncated for piece in pieces)
    assert tokenizer.decode(whole[:-1]) == text


def test_a_document_of_one_token_predicts_its_end(tokenizer):
    first = tokenizer("a", add_special_tokens=False)["input_ids"]
    assert tokenise_all([Document("a")], chat, tokenizer, 1, 8) == [[Tokenised([*first, tokenizer.eos_token_id], 1)]]


@pytest.mark.parametrize(
    ("form", "begin"),
    [("<|im_start|> $A <|im_end|>", [0]), ("$A <|im_end|>", []), ("<|im_start|> $A", [0]), ("$A", [])],
)
def test_a_plain_prompt_begins_as_the_tokenizer_begins_and_never_ends_in_eos(
    form: str, begin: list[int], tmp_path: Path
) -> None:
    """As `add_eos_token` or a post-processor has it."""
    tokenizer = write_tokenizer(tmp_path)
    bare = tokenizer("Ada lives")["input_ids"]
    special = [("<|im_start|>", 0), ("<|im_end|>", 1)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=form, special_tokens=special)
    assert tokenizer("Ada lives")["input_ids"] == [*begin, *bare, *([1] if "<|im_end|>" in form else [])]
    assert plain_prompt("Ada lives", tokenizer) == [*begin, *bare]
    assert plain_prompt("<|im_start|>Ada lives", tokenizer) == [
        0,
        *bare,
    ]  # one that brings its BOS along gets no second
    assert plain_prompt("", tokenizer) == begin
    for template in (chat, alpaca):  # templates write all special tokens themselves
        tokens = tokenise(EXAMPLE, template, tokenizer, 200, 256)
        assert tokenizer.decode(tokens.input_ids) == template(EXAMPLE, tokenizer) + EXAMPLE.response + "<|im_end|>"


def test_a_response_that_ends_in_eos_ends_once(tokenizer) -> None:
    plain = tokenise(EXAMPLE, chat, tokenizer, 200, 256)
    assert (
        tokenise(
            Example(EXAMPLE.instruction, EXAMPLE.context, f"{EXAMPLE.response}<|im_end|>"), chat, tokenizer, 200, 256
        )
        == plain
    )
    ended = tokenise(Example("", "", "<|im_end|>"), lambda example, _: "Ada<|im_end|>", tokenizer, 50, 60)
    assert ended.input_ids[ended.n_prompt :] == [tokenizer.eos_token_id]


def test_what_the_limits_take_is_noted_with_its_lengths(tokenizer):
    """And nothing of a row that has no response, or that fits."""
    short, empty = EXAMPLE, Example("Where does Ada live?", "Ada is in Paris . " * 40, "")
    long, wordy = (
        Example("Where?", "Ada is in Paris . " * 40, "Ada"),
        Example("Where?", "Ada", "Ada is in Paris . " * 60),
    )
    beyond = Beyond()
    rows = tokenise_all([short, empty, long, wordy], chat, tokenizer, 200, 256, beyond=beyond)
    prompt, whole = (tokenise(example, chat, tokenizer, 5000, 9000) for example in (long, wordy))
    assert [bool(made) for made in rows] == [True, False, False, True]
    assert (beyond.prompts, beyond.wholes) == ([prompt.n_prompt], [len(whole.input_ids)])


def test_for_an_encoder_decoder_prompt_and_response_are_texts_of_their_own(tmp_path):
    for family, begin in (("t5", ""), ("bart", "<s>")):
        folder = write_encoder_decoder(tmp_path / family, family)
        tokenizer = load_tokenizer(folder)
        for template in (alpaca, plain):  # `plain` begins with <s> itself, which stands there once
            [[row]] = tokenise_all([EXAMPLE], template, tokenizer, 200, 256, " ", decoder=1000)
            prompt, response = row.input_ids[: row.n_prompt], row.input_ids[row.n_prompt :]
            bare = template(EXAMPLE, tokenizer).removeprefix("<s>")
            assert tokenizer.decode(prompt) == f"{begin}{bare}</s>"
            assert tokenizer.decode(response) == f"{begin}{EXAMPLE.response}</s>"
            assert not row.truncated


def test_limits_of_an_encoder_decoder_are_of_its_prompt_and_of_both_together(tmp_path):
    tokenizer = load_tokenizer(write_encoder_decoder(tmp_path / "m"))

    def made(max_prompt, max_length, decoder):
        beyond = Beyond()
        examples = [EXAMPLE, Example("Ada", "", "")]
        rows, empty = tokenise_all(examples, alpaca, tokenizer, max_prompt, max_length, "", beyond, decoder)
        assert empty == []
        return rows, beyond

    [whole], beyond = made(200, 256, 1000)
    n, length = whole.n_prompt, len(whole.input_ids)
    assert (beyond.prompts, beyond.wholes) == ([], [])
    assert made(n, length, length - n)[0] == [whole]
    rows, beyond = made(n - 1, 256, 1000)
    assert (rows, beyond.prompts) == ([], [n])
    for max_length, decoder in ((length - 1, 1000), (256, length - n - 1)):
        [cut], beyond = made(n, max_length, decoder)
        assert (cut.input_ids, cut.truncated) == (whole.input_ids[:-1], True)
        assert beyond.wholes == [length]
