"""Metrics of texts against the tools that define them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nltk.translate.meteor_score import single_meteor_score
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.chrf import CHRF

from kdray.data.sentences import split
from kdray.score.answers import Answer
from kdray.score.metrics.best_span import best_span
from kdray.score.metrics.chrf import chrf
from kdray.score.metrics.exact_match import exact_match
from kdray.score.metrics.meteor import NoSynonyms, meteor
from kdray.score.metrics.rouge import rouge
from kdray.score.metrics.rouge_paper import rouge_paper
from kdray.score.metrics.truthful import truthful

TEXTS = [
    ("The cats were running home", "a cat runs home"),
    ("", "something"),
    ("same words here", "same words here"),
    ("First line.\nSecond line, longer.", "Second line.\nA first line!"),
]


@pytest.mark.parametrize(("text", "reference"), TEXTS)
def test_overlap_metrics_are_the_tools_own(text, reference):
    answer = Answer(text, references=[reference])
    expected = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True).score(reference, text)
    assert rouge([answer])[0] == {name: 100 * value.fmeasure for name, value in expected.items()}
    assert chrf([answer])[0]["chrf"] == CHRF().sentence_score(text, [reference]).score


def test_rouge_takes_the_best_reference_and_lines_count_for_lsum():
    two = rouge([Answer("b b", references=["a", "b b"])])[0]
    assert two["rougeL"] == 100
    lines = rouge([Answer("x y\nz w", references=["z w\nx y"])])[0]
    assert lines["rougeLsum"] == 100 > lines["rougeL"]
    assert rouge([Answer("a")]) == [{"error": "rouge: no reference to compare with"}]


def test_the_stemmer_is_on():
    assert rouge([Answer("running cats", references=["runs cat"])])[0]["rougeL"] == 100


NAMES = ["rouge1", "rouge2", "rougeL", "rougeLsum"]


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("sentences", ["lines", "periods"])
@pytest.mark.parametrize("stemmer", [True, False])
def test_rouge_of_real_texts_is_rouge_scores_own(stemmer: bool, sentences: str, data_dir: Path) -> None:
    """The lead of an article as its summary; half of the texts with their full stops apart, as tokenised corpora have
    them.
    """
    lines = (data_dir / "xsum.test.jsonl").read_text().splitlines()[:50]
    pairs = []
    for i, row in enumerate(map(json.loads, lines)):
        lead = " ".join(split(row["document"])[: 1 + i % 3])
        reference = f"{row['summary']} {' '.join(split(row['document'])[1:2])}"
        pairs.append((lead, reference) if i % 2 else (lead.replace(". ", " . "), reference.replace(". ", " . ")))
    scorer = RougeScorer(NAMES, use_stemmer=stemmer)
    found = rouge(
        [Answer(text, references=[reference]) for text, reference in pairs], stemmer=stemmer, sentences=sentences
    )
    paper = rouge_paper([Answer(text, references=[reference]) for text, reference in pairs])
    changed = 0
    for (text, reference), numbers, papers in zip(pairs, found, paper, strict=True):
        plain = scorer.score(reference, text)
        if sentences == "periods":
            text, reference = (part.replace(" . ", "\n") for part in (text, reference))
        expected = scorer.score(reference, text)
        changed += expected["rougeLsum"] != plain["rougeLsum"]
        assert numbers == pytest.approx({name: 100 * expected[name].fmeasure for name in NAMES}, rel=0, abs=1e-12)
        if not stemmer and sentences == "periods":
            assert papers == pytest.approx({"paperL": 100 * expected["rougeLsum"].fmeasure}, rel=0, abs=1e-12)
    assert (changed > 5) == (sentences == "periods"), "these texts could not tell one from the other"


def test_the_papers_rouge_differs_from_ours_as_it_should() -> None:
    answer = Answer("cats running . left he", references=["left he . cats run"])
    assert rouge([answer])[0]["rougeLsum"] < 100 == rouge([answer], sentences="periods")[0]["rougeLsum"]
    assert rouge_paper([answer]) == [
        {"paperL": 75.0}
    ]  # `running` and `run` are two words, the order of sentences does not count
    assert rouge_paper([Answer("a")]) == [{"error": "rouge_paper: no reference to compare with"}]
    (hindi,) = rouge_paper([Answer("a", references=["नदी में बाढ़"])])
    assert hindi["error"].endswith("of the reference; take rouge with tokenizer: unicode")


def test_meteor_without_synonyms_is_nltks_with_words_and_stems():
    text, reference = "The cats were running home", "a cat runs home"
    expected = single_meteor_score(reference.split(), text.split(), wordnet=NoSynonyms())  # type: ignore[arg-type]
    assert meteor([Answer(text, references=[reference])], synonyms=False)[0]["meteor"] == pytest.approx(100 * expected)
    assert expected > 0


def test_meteor_parts_sentences_before_words():
    one = meteor([Answer("It rained. He left.", references=["rained . left ."])], synonyms=False)[0]["meteor"]
    assert one > meteor([Answer("It rained, He left,", references=["rained . left ."])], synonyms=False)[0]["meteor"]


@pytest.mark.parametrize(
    ("text", "reference", "em", "f1"),
    [
        ("The Eiffel Tower!", "eiffel tower", 100, 100),
        ("It is Paris, France", "Paris", 0, 40),
        ("yes it is", "yes", 0, 0),  # HotpotQA: a verdict shares no tokens with a sentence
        ("Yes.", "yes", 100, 100),
        ("", "a", 0, 0),  # saying nothing is never right, also where articles are all that there is
        ("A.", "a", 100, 100),
        ("", "word", 0, 0),
        ("a a b b", "b b b", 0, 100 * 2 * 1 * (2 / 3) / (1 + 2 / 3)),
    ],
)
def test_exact_match_and_f1_are_those_of_squad_and_hotpotqa(text, reference, em, f1):
    found = exact_match([Answer(text, references=["zzz zzz", reference])])[0]
    assert (found["em"], found["f1"]) == (em, pytest.approx(f1))


@pytest.mark.parametrize(
    ("text", "tokenizer", "value"),
    [
        ("It is in the Eiffel Tower, I think.", "default", 100),
        ("eiffel; tower", "default", 100),
        ("Eiffel had no tower", "default", 0),
        ("", "default", 0),
        ("The Eiffel Towers", "default", 100),  # as its authors have it: a text within a text
        ("The Eiffel Towers", "unicode", 0),
        ("Das ist größere Ehre", "unicode", 100),
    ],
)
def test_a_right_answer_within_an_answer(text, tokenizer, value):
    references = ["The zzz", "Eiffel Tower", "größere ehre"]
    assert best_span([Answer(text, references=references)], tokenizer=tokenizer) == [{"span_em": value}]


def test_no_right_answer_is_no_zero():
    assert best_span([Answer("x")]) == [{"error": "best_span: no reference to compare with"}]
    assert best_span([Answer("x", references=["..."])]) == [{"error": "best_span: the reference holds no word"}]
    assert best_span([Answer("x", references=["...", "y"])]) == [{"span_em": 0}]


def test_truth_is_being_nearer_to_a_right_answer():
    answer = Answer(
        "seeds pass through you", references=["nothing happens", "seeds pass through"], wrong=["you get sick"]
    )
    assert truthful([answer])[0]["truth"] == 100
    assert truthful([Answer("you get sick", references=answer.references, wrong=answer.wrong)])[0] == {
        "truth": 0.0,
        "truth_diff": -100.0,
    }
    stems = Answer("getting sick", references=["You get sick"], wrong=["getting well"])  # nearer only by its stems
    assert truthful([stems])[0] == {"truth": 0.0, "truth_diff": pytest.approx(40 - 50)}
    assert truthful([Answer("x", references=["y"])]) == [{"error": "truthful: no wrong answer to compare with"}]
    assert truthful([Answer("x", wrong=["y"])]) == [{"error": "truthful: no reference to compare with"}]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Mr. Smith met J. Doe. He left.", ["Mr. Smith met J. Doe.", "He left."]),
        ("At 5 p.m. The U.S. Navy came (i.e. U.K. Ships).", ["At 5 p.m. The U.S. Navy came (i.e. U.K. Ships)."]),
        ("Ann Lee, Ph.D. Is it? It is.", ["Ann Lee, Ph.D. Is it?", "It is."]),
        ("It is in the U.S. navy. So it is.", ["It is in the U.S. navy.", "So it is."]),
        (
            '"J. Doe" met "U.N. Staff". They ate. I. e. nothing',
            ['"J. Doe" met "U.N. Staff".', "They ate.", "I. e. nothing"],
        ),
        ('He said "no." Then 3 came.', ['He said "no."', "Then 3 came."]),
        ("costs 3.5 million. e.g. this", ["costs 3.5 million. e.g. this"]),
        ("a line\n\nanother", ["a line", "another"]),
        (" \n", []),
        ("Il est parti. Élodie reste. À demain !", ["Il est parti.", "Élodie reste.", "À demain !"]),
    ],
)
def test_sentences(text, sentences):
    assert split(text) == sentences
