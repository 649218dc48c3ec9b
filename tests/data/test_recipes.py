"""Recipes read their columns, and say which one is not what they need."""

from __future__ import annotations

import json
import re

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from kdray.data.example import Document, Example
from kdray.data.recipes.columns import columns
from kdray.data.recipes.commonsense_qa import commonsense_qa
from kdray.data.recipes.dialogsum import dialogsum
from kdray.data.recipes.dolly import dolly
from kdray.data.recipes.news import news
from kdray.data.recipes.pubmed_qa import pubmed_qa
from kdray.data.recipes.text import text
from kdray.data.templates.alpaca import alpaca
from kdray.data.tokenise import tokenise
from kdray.spec import declare
from kdray.spec.components import components, declared, load
from kdray.spec.errors import InputError

DOLLY = {"instruction": " do ", "context": None, "response": " done\n"}
PUBMED = {
    "question": "Why? ",
    "context": {"contexts": ["One.", "Two."], "labels": ["A", "B"], "meshes": []},
    "long_answer": " So.",
}
SENSE = {"question": " Why? ", "choices": {"label": ["A", "B"], "text": ["so", "no "]}, "answerKey": "B"}


def test_recipes_read_their_columns():
    assert dolly(DOLLY) == Example("do", "", "done")
    assert columns({"q": "why", "a": "so"}, response="a", instruction="q") == Example("why", "", "so")
    assert columns({"text": "long", "a": "so"}, response="a", context="text", ask="Shorten.") == Example(
        "Shorten.", "long", "so"
    )
    assert pubmed_qa(PUBMED) == Example("Why?", "One.\nTwo.", "So.")
    assert dialogsum({"dialogue": "#Person1#: Hi.\n", "summary": " They meet."}) == Example(
        "Summarize the dialogue.", "#Person1#: Hi.", "They meet."
    )
    assert dialogsum({"dialogue": "a", "summary": "b"}, ask="Shorten.").instruction == "Shorten."
    assert commonsense_qa(SENSE) == Example("Question: Why?\nA. so\nB. no \nAnswer:", "", "B")


@pytest.mark.parametrize("key", ["", " ", None])
def test_a_question_without_an_answer_key_is_left_out(key):
    assert commonsense_qa(SENSE | {"answerKey": key}) is None


def test_a_text_is_kept_to_the_last_space_and_a_blank_one_is_left_out():
    assert text({"text": " a\n"}) == Document(" a\n")
    assert text({"body": "b"}, column="body") == Document("b")
    assert [text({"text": blank}) for blank in ("", " \n", None)] == [None] * 3


def test_news_leaves_out_what_is_short_or_damaged_and_cuts_the_rest():
    article, summary = " ".join(f"w{i}" for i in range(120)), "one two three four five six seven eight"
    assert news({"text": article, "subtitle": summary}, max_words=50).context == " ".join(f"w{i}" for i in range(50))
    assert news({"text": article, "subtitle": "too short"}) is None
    assert news({"text": " ".join(article.split()[:99]), "subtitle": summary}) is None
    assert news({"text": article + " \ufffd", "subtitle": summary}) is None
    assert news({"text": article, "subtitle": summary + ' "?'}) is None
    assert news({"text": None, "subtitle": None}) is None


@pytest.mark.parametrize(
    ("recipe", "row", "said"),
    [
        (dolly, {"instruction": "a", "response": "b"}, "no column 'context'; it has instruction, response"),
        (dolly, DOLLY | {"response": ["a"]}, "column 'response' holds a list; it must hold text"),
        (dolly, DOLLY | {"response": {"text": "a"}}, "column 'response' holds a mapping; it must hold text"),
        (dolly, DOLLY | {"response": 42}, "column 'response' holds the int 42; it must hold text"),
        (text, {"text": 1.5}, "column 'text' holds the float 1.5; it must hold text"),
        (text, {"body": "a"}, "no column 'text'; it has body"),
        (pubmed_qa, {"question": "a", "long_answer": "b"}, "no column 'context'; it has question, long_answer"),
        (
            pubmed_qa,
            PUBMED | {"context": "a"},
            "column 'context' holds a text; it must hold a mapping with a list of texts, 'contexts'",
        ),
        (pubmed_qa, PUBMED | {"context": None}, "column 'context' holds nothing; it must hold"),
        (
            pubmed_qa,
            PUBMED | {"context": {"labels": []}},
            "column 'context' holds a mapping of labels: a list; it must hold",
        ),
        (
            pubmed_qa,
            PUBMED | {"context": {"contexts": "a"}},
            "column 'context' holds a mapping of contexts: a text; it must hold",
        ),
        (
            pubmed_qa,
            PUBMED | {"context": {"contexts": [1]}},
            "column 'context' holds a mapping of contexts: a list; it must hold",
        ),
        (commonsense_qa, SENSE | {"answerKey": "F"}, "answerKey 'F' is none of A, B; it must be one of them, or empty"),
        (commonsense_qa, SENSE | {"answerKey": 1}, "column 'answerKey' holds the int 1; it must hold text"),
        (
            commonsense_qa,
            SENSE | {"choices": {"label": ["A"], "text": ["so", "no"]}},
            "column 'choices' holds 1 letters and 2 texts",
        ),
        (
            commonsense_qa,
            SENSE | {"choices": {"text": ["so"]}},
            "column 'choices' holds a mapping of text: a list; it must hold",
        ),
    ],
)
def test_a_cell_that_cannot_be_used_is_named(recipe, row, said):
    with pytest.raises(InputError, match=re.escape(f"data.source: {said}")):
        recipe(row)


@pytest.mark.parametrize("name", components(declare.Recipe))
def test_a_recipe_reads_the_columns_that_it_declares_and_no_others(name):
    """The check before a run looks for the declared ones, and for no others."""
    declares = declared(declare.Recipe, name)
    given = {key: key for key in declares.column_parameters}
    row = dict.fromkeys(given.values(), "a")
    for column in declares.columns:
        outer, _, inner = column.partition(".")
        row[outer] = row.get(outer, {}) | {inner: ["a"]} if inner else "a"
    recipe = load(declare.Recipe, name)
    recipe(row, **given)
    for column in row:
        with pytest.raises(InputError, match=f"no column '{column}'"):
            recipe({key: value for key, value in row.items() if key != column}, **given)


def byte_level_bpe(texts: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of the texts' own 4,000 most useful tokens, of the kind that most models have."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=4000, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def minillm(row, tokenizer):
    """MiniLLM's rule for one row of Dolly, written from its description: ids, length of the prompt; None if dropped."""
    head = "Below is an instruction that describes a task"
    order = "Write a response that appropriately completes the request.\n\n### Instruction:\n"
    if row["context"]:
        head += (
            f", paired with an input that provides further context. {order}{row['instruction']}\n\n###"
            f" Input:\n{row['context']}"
        )
    else:
        head += f". {order}{row['instruction']}"
    prompt = tokenizer.encode(head + "\n\n### Response:\n", add_special_tokens=False)
    if len(prompt) > 256:
        return None
    whole = tokenizer.encode(head + "\n\n### Response:\n" + row["response"], add_special_tokens=False)
    return [*whole, tokenizer.eos_token_id][:512], len(prompt)


@pytest.mark.slow
@pytest.mark.realdata
def test_dolly_is_prepared_as_minillm_prepares_it(data_dir):
    with (data_dir / "databricks-dolly-15k.jsonl").open() as file:
        rows = [{key: value.strip() for key, value in json.loads(line).items()} for line in list(file)[::25]]
    tokenizer = byte_level_bpe([value for row in rows for value in row.values()])
    expected = [minillm(row, tokenizer) for row in rows]
    made = tokenise([dolly(row) for row in rows], alpaca, tokenizer, 256, 512)
    assert [(row[0].input_ids, row[0].n_prompt) if row else None for row in made] == expected
    dropped, cut = expected.count(None), sum(row.truncated for made_of_one in made for row in made_of_one)
    assert 0.08 < dropped / len(rows) < 0.25, "too few or too many long prompts to have tested the rule"
    assert cut > 0


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("file", "recipe", "instruction", "context", "response"),
    [
        (
            "pubmed_qa_labeled.jsonl",
            pubmed_qa,
            "Do mitochondria play",
            "Programmed cell death (PCD)",
            "Results depicted",
        ),
        (
            "dialogsum.dev.jsonl",
            dialogsum,
            "Summarize the dialogue.",
            "#Person1#: Hello, how are you",
            "#Person2# has trouble breathing.",
        ),
    ],
)
def test_every_real_row_becomes_an_example(data_dir, file, recipe, instruction, context, response):
    with (data_dir / file).open() as lines:
        examples = [recipe(json.loads(line)) for line in lines]
    assert len(examples) == 500
    assert all(example.instruction and example.context and example.response for example in examples)
    first = examples[0]
    assert first.instruction.startswith(instruction)
    assert first.context.startswith(context)
    assert first.response.startswith(response)
