"""Metrics with models: their structure on small random ones, their formulas against the definition."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForTokenClassification,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
    T5ForTokenClassification,
)

from kdray.score.answers import Answer, Given, apply
from kdray.score.metrics.bertscore import BERTScore
from kdray.score.metrics.factkb import FactKB
from kdray.score.metrics.hhem import HHEM, PROMPT
from kdray.score.metrics.lettucedetect import LettuceDetect, merge
from kdray.score.metrics.minicheck import MiniCheck, _summary, cut
from kdray.score.metrics.selfcheck import SelfCheck
from kdray.score.metrics.support_standin import SupportStandin
from kdray.spec import declare
from kdray.spec.errors import InputError
from tests.tiny import write_model

WORDS = [
    "[PAD]",
    "[CLS]",
    "[SEP]",
    "[UNK]",
    "Ada",
    "Ben",
    "is",
    "in",
    "Paris",
    "Rome",
    "lives",
    ".",
    "the",
    "source",
    "predict",
    ":",
    "now",
]
GOLDEN = [
    ("The capital of France is Berlin.", "The capital of France is Paris.", 0.01106),
    ("I am in California", "I am in United States.", 0.64736),
    ("I am in United States", "I am in California.", 0.12902),
    ("A person on a horse jumps over a broken down airplane.", "A person is outdoors, on a horse.", 0.89694),
    (
        "A boy is jumping on skateboard in the middle of a red bridge.",
        "The boy skates down the sidewalk on a red bridge",
        0.18462,
    ),
    (
        "A man with blond-hair, and a brown shirt drinking out of a public water fountain.",
        "A blond man wearing a brown shirt is reading a book.",
        0.00503,
    ),
    ("Mark Wahlberg was a fan of Manny.", "Manny was a fan of Mark Wahlberg.", 0.05432),
]


def write_words(folder: Path) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    special = {
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "eos_token": "[SEP]",
        "unk_token": "[UNK]",
    }
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special)
    fast.save_pretrained(folder)
    return fast


def t5_config(**changes) -> T5Config:
    sizes = {"vocab_size": 256, "d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 2, "num_heads": 2}
    return T5Config(**sizes, decoder_start_token_id=0, feed_forward_proj="gated-gelu", **changes)


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    write_words(tmp_path / "bert")
    size = {
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    BertModel(BertConfig(**size, initializer_range=0.5)).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_hhem_is_a_plain_t5_with_its_first_tokens_class(tmp_path):
    torch.manual_seed(0)
    base, folder = tmp_path / "base", tmp_path / "hhem"
    tokenizer = write_words(base)
    t5_config().save_pretrained(base)
    theirs = T5ForTokenClassification(t5_config(num_labels=2)).eval()
    folder.mkdir()
    weights = {f"t5.{key}": value for key, value in theirs.state_dict().items() if "embed_tokens" not in key}
    save_file({key: value.clone() for key, value in weights.items()}, folder / "model.safetensors")
    metric = HHEM(Given({"model": folder, "base": base}), batch=2)
    answers = [
        Answer("Ada is in Rome .", source="Ada is in Paris ."),
        Answer("", source="x"),
        Answer("Ben", source="Ben lives in Rome now ."),
    ]
    found = metric(answers)
    for answer, scores in zip(answers, found, strict=True):
        if not answer.text:
            assert scores == {}
            continue
        ids = torch.tensor([tokenizer(PROMPT.format(source=answer.source, summary=answer.text))["input_ids"]])
        expected = theirs(input_ids=ids).logits[0, 0].softmax(-1)[1].item()
        assert scores["fc_mean"] == pytest.approx(100 * expected, abs=1e-3)
        assert scores["fc"] == 100 * (expected >= 0.5)
    save_file({"t5.classifier.bias": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(
        InputError, match=r"^score\.metrics\.hhem\.model: \S+, which is no HHEM-2\.1, lacks the weight "
    ):
        HHEM(Given({"model": folder, "base": base}))


@pytest.mark.hub
def test_hhem_gives_the_scores_of_its_model_card(tmp_path):
    from huggingface_hub import snapshot_download

    from kdray.spec.components import components
    from kdray.spec.refs import parse_reference

    refs = {
        name: parse_reference(components(declare.Metric)["hhem"].parameters[name].default) for name in ("model", "base")
    }
    folders = {
        name: Path(
            snapshot_download(
                ref.name,
                revision=ref.version,
                allow_patterns=["*.json", "*.model"] + ["*.safetensors"] * (name == "model"),
            )
        )
        for name, ref in refs.items()
    }
    metric = HHEM(Given(folders))
    for source, summary, score in GOLDEN:
        assert metric.probabilities([(source, summary)])[0] == pytest.approx(score, abs=1e-3)


def write_roberta(folder: Path, labels: int = 2, positions: int = 32) -> RobertaForSequenceClassification:
    """A random RoBERTa whose window is `positions` less one: it counts from behind the padding token's number, 0."""
    torch.manual_seed(0)
    size = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "initializer_range": 0.5,
    }
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = RobertaConfig(
        vocab_size=len(WORDS), max_position_embeddings=positions, num_labels=labels, **size, **special
    )
    model = RobertaForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("batch", [1, 3])
def test_factkb_is_a_plain_roberta_on_summary_and_document(batch: int, tmp_path: Path) -> None:
    base, folder = tmp_path / "base", tmp_path / "factkb"  # the weights have no tokenizer beside them
    tokenizer, theirs = write_words(base), write_roberta(folder)
    theirs.config.save_pretrained(base)
    metric = FactKB(Given({"model": folder, "base": base}), batch=batch)
    answers = [
        Answer("Ada is in Rome .", source="Ada is in Paris ."),
        Answer("", source="Ada"),
        Answer("Ben", source=""),
        Answer("Ben", source="Ben lives in Rome now ."),
        Answer("Ben is in Paris .", source="Ben lives in Rome now . " * 20),
        Answer("Ada . " * 13, source="Ada is in Paris ."),  # 26 tokens and 3 special ones leave two
        Answer("Ada . " * 14, source="Ada is in Paris ."),
    ]
    found = metric(answers)
    assert found[1] == found[2] == {}
    assert found[6] == {"error": "factkb: an answer of 28 tokens leaves no room for its document, of 28 for both"}
    values = []
    for i in (0, 3, 4, 5):
        words = [
            tokenizer(text, add_special_tokens=False)["input_ids"] for text in (answers[i].text, answers[i].source)
        ]
        ids = [1, *words[0], 2, *words[1][: 31 - 3 - len(words[0])], 2]
        expected = theirs(input_ids=torch.tensor([ids])).logits[0].double().softmax(-1)[1].item()
        assert found[i] == {"factkb": pytest.approx(100 * expected, abs=1e-3)}
        values.append(expected)
    assert max(values) - min(values) > 0.01, "a constant would pass"


def test_factkb_is_held_to_two_labels_and_to_all_of_its_weights(tmp_path: Path) -> None:
    base, folder = tmp_path / "base", tmp_path / "factkb"
    write_words(base)
    write_roberta(folder, labels=3).config.save_pretrained(base)
    with pytest.raises(InputError, match=r"^score\.metrics\.factkb\.model: a classifier of 3 labels; it needs two"):
        FactKB(Given({"model": folder, "base": base}))
    weights = {name: value.clone() for name, value in write_roberta(folder).state_dict().items()}
    old = weights | {
        "roberta.embeddings.position_ids": torch.arange(32)[None]
    }  # older versions of transformers saved them
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
    FactKB(Given({"model": folder, "base": base}))
    del weights["classifier.out_proj.bias"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks the weight classifier\.out_proj\.bias"):
        FactKB(Given({"model": folder, "base": base}))


def test_minicheck_takes_the_best_part_and_the_worst_sentence(tmp_path):
    torch.manual_seed(0)
    write_words(tmp_path)
    T5ForConditionalGeneration(t5_config()).save_pretrained(tmp_path)
    metric = MiniCheck(Given({"model": tmp_path}), words=6)
    answer = Answer("Ada is in Rome. Ben lives.", source="Ada is in Paris now. Ben lives in Rome.")
    parts = cut(answer.source, 6)
    assert parts == ["Ada is in Paris now.", "Ben lives in Rome."]
    chances = [
        max(metric.probabilities([(part, claim) for part in parts])) for claim in ("Ada is in Rome.", "Ben lives.")
    ]
    found = metric([answer, Answer("", source="x")])
    assert found[0]["mini_mean"] == pytest.approx(100 * sum(chances) / 2, abs=1e-3)
    assert found[0]["mini"] == 100 * (min(chances) >= 0.5)
    assert found[1] == {}


def test_lettucedetect_marks_characters_of_the_answer(tmp_path):
    torch.manual_seed(0)
    write_words(tmp_path)
    size = {
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    model = BertForTokenClassification(BertConfig(**size, num_labels=2))
    torch.nn.init.zeros_(model.classifier.weight)
    for bias, spans, share in (([0.0, 1.0], [[0, 11]], 0), ([1.0, 0.0], [], 100)):
        model.classifier.bias.data = torch.tensor(bias)
        model.save_pretrained(tmp_path)
        found = LettuceDetect(Given({"model": tmp_path}))([Answer("Ada in Rome", source="Ada is in Paris")])[0]
        assert found == {"lettuce": float(share), "lettuce_tok": float(share), "spans": spans}
    assert merge([(0, 3), (4, 6), (7, 9), (9, 12)], [True, False, True, True]) == [(0, 3), (7, 12)]


def test_bertscore_is_greedy_matching_of_hidden_states(bert):
    """Against its definition in loops and float64, special tokens to be matched but not counted."""
    metric = BERTScore(Given({"model": bert}), layer=1, batch=4)
    answers = [
        Answer("Ada is in Rome", references=["Ben lives in Rome now", "Ada is in Paris ."]),
        Answer("", references=["Ada"]),
        Answer("Ben", references=["Ben"]),
    ]
    found = metric(answers)

    def states(text):
        ids = metric.encoder.tokenizer(text, return_tensors="pt")
        hidden = metric.encoder.model(**ids, output_hidden_states=True).hidden_states[1][0].double()
        return [vector / vector.norm() for vector in hidden]

    def expected(text, reference):
        ours, theirs = states(text), states(reference)
        precision = sum(max(float(a @ b) for b in theirs) for a in ours[1:-1]) / (len(ours) - 2)
        recall = sum(max(float(a @ b) for a in ours) for b in theirs[1:-1]) / (len(theirs) - 2)
        return 200 * precision * recall / (precision + recall)

    assert found[0]["bert_f1"] == pytest.approx(
        max(expected(answers[0].text, r) for r in answers[0].references), abs=1e-3
    )
    assert found[1]["bert_f1"] == 0
    assert found[2]["bert_f1"] == pytest.approx(100, abs=1e-3)
    with pytest.raises(InputError, match=r"score\.metrics\.bertscore\.layer: 3; the encoder has layers 1 to 2"):
        BERTScore(Given({"model": bert}), layer=3)


def test_selfcheck_is_the_mean_support_of_sentences_by_samples(bert):
    metric = SelfCheck(Given({"model": bert}))
    answer = Answer("Ada is in Rome. Ben lives.", samples=["Ben lives. Ada is in Rome.", "Ben lives.", ""])
    ada, ben = metric.encoder.vectors(["Ada is in Rome.", "Ben lives."])
    between = float(ada @ ben)
    assert metric([answer])[0]["selfchk"] == pytest.approx(100 * (1 + 1 + between + 1 + 0 + 0) / 6, abs=1e-3)
    assert metric([Answer("Ada is in Rome.")]) == [{}]


def test_the_standin_is_a_difference_of_log_likelihoods_whatever_the_batch(tmp_path):
    folder = write_model(tmp_path / "model", layers=1)
    metric = SupportStandin(Given({"model": folder}), batch=2)
    answers = [
        Answer("Ada lives in Rome", source="Ada is in Rome ."),
        Answer("", source="x"),
        Answer("Ben", source="Ben is in Oslo . " * 5),
    ]
    found = metric(answers)
    assert found[1] == {}

    def mean_log_p(before, after):
        ids = metric.ids_of(before), metric.ids_of(after)
        logits = metric.model(input_ids=torch.tensor([ids[0] + ids[1]])).logits[0].double().log_softmax(-1)
        start = len(ids[0]) - 1
        return sum(float(logits[start + i, token]) for i, token in enumerate(ids[1])) / len(ids[1])

    for i in (0, 2):
        text, source = answers[i].text, " ".join(answers[i].source.split())
        expected = mean_log_p(source + "\n\nSummary: ", text) - mean_log_p("Summary: ", text)
        assert found[i]["support"] == pytest.approx(expected, abs=1e-4)


def test_a_model_without_numbers_calls_nothing_supported_clean_or_unlike(tmp_path: Path, bert: Path) -> None:
    similar = BERTScore(Given({"model": bert}), layer=2)
    similar.encoder.model.embeddings.LayerNorm.bias.data.fill_(math.nan)
    [row] = apply(similar, [Answer("Ada is in Paris", references=["Ada is in Rome"])])
    assert row == {"error": "bert_f1 is nan, no number"}
    assert math.isnan(_summary([("a", math.nan), ("a", 0.9), ("b", 0.9)])["mini_mean"])
    write_words(tmp_path)
    size = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertForTokenClassification(BertConfig(**size, intermediate_size=32, num_labels=2)).save_pretrained(tmp_path)
    metric = LettuceDetect(Given({"model": tmp_path}))
    metric.model.classifier.bias.data.fill_(math.nan)
    assert metric([Answer("Ada is in Paris", source="Ada is in Rome")]) == [
        {"error": "lettucedetect: its model gives no numbers"}
    ]
