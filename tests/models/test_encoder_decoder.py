"""Encoder-decoders: loss and gradient, answers and likelihoods are those of transformers and lm-eval."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from torch import nn

from kdray.artifacts.rows import Rows
from kdray.data.collate import collate
from kdray.data.templates.alpaca import alpaca
from kdray.distill.objective import Objective
from kdray.distill.student import Student
from kdray.models.adapters import merged, with_lora
from kdray.models.cut import cut
from kdray.models.generation import generate_greedy
from kdray.models.head import ResponseModel
from kdray.models.load import load_folder, save
from kdray.score.benchmark import Benchmark
from kdray.score.decodings import open_decoding
from kdray.score.prompts import Prompt
from kdray.spec.errors import InputError
from kdray.train.engines import Ranks
from kdray.train.loop import Loop
from tests.score.test_benchmark import QUESTIONS, answers, setting, write_task
from tests.tiny import write_encoder_decoder, write_rows
from tests.train.test_loop import SETTINGS

UNBOUNDED = 1 << 30
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}  # T5 1.1: its states are not scaled
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("t5", {}),
    "t5 1.1": ("t5", GATED),
    "mt5": ("mt5", {}),
    "bart": ("bart", {}),
    "bart, biased": ("bart", {}),
}


def write(folder: Path, case: str) -> Path:
    family, changes = FAMILIES[case]
    write_encoder_decoder(folder, family, **changes)
    if case in ("t5 1.1", "bart, biased"):
        model, tokenizer = load_folder(folder)
        whole: Any = model
        if case == "t5 1.1":  # its head is a matrix of its own
            whole.lm_head.weight = nn.Parameter(torch.randn_like(whole.lm_head.weight))
        else:
            whole.final_logits_bias.normal_(std=3.0)
        save(model, tokenizer, folder)
    return folder


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("model") / "m", request.param)


@pytest.fixture(scope="module")
def rows(folder: Path) -> Rows:
    tokenizer: Any = load_folder(folder)[1]
    return Rows(write_rows(folder.parent / "rows", tokenizer, template=alpaca, decoder=UNBOUNDED))


def test_loss_and_gradient_are_those_of_the_models_own_labels(folder: Path, rows: Rows) -> None:
    (model, _), (twin, _) = (load_folder(folder, torch.float64) for _ in range(2))
    student, chosen = Student(ResponseModel(model)), [0, 5, 3]
    batch = collate(rows, chosen, student.model.start)
    total, terms = student(Objective(0.0, model.config.vocab_size), batch, None)
    total.backward()

    wholes, cuts = [rows.input_ids(row) for row in chosen], [int(rows.prompt_lengths[row]) for row in chosen]
    prompts = [torch.tensor(ids[:cut]) for ids, cut in zip(wholes, cuts, strict=True)]
    responses = [torch.tensor(ids[cut:]) for ids, cut in zip(wholes, cuts, strict=True)]
    pad = nn.utils.rnn.pad_sequence
    theirs = twin(
        input_ids=pad(prompts, batch_first=True),
        attention_mask=pad([torch.ones_like(ids) for ids in prompts], batch_first=True),
        labels=pad(responses, batch_first=True, padding_value=-100),
    )
    expected = theirs.loss * sum(map(len, responses))
    expected.backward()
    assert len(batch.labels) == sum(map(len, responses))
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-10)
    assert float(terms[0]) == pytest.approx(float(expected.detach()), rel=1e-10)
    ours = dict(model.named_parameters())
    for name, parameter in twin.named_parameters():
        assert parameter.grad is not None
        assert (ours[name].grad - parameter.grad).norm() <= 1e-9 * parameter.grad.norm() + 1e-12, name


def test_in_bfloat16_the_head_is_found_too(folder: Path) -> None:
    scales = [ResponseModel(load_folder(folder, dtype)[0]).head.scale for dtype in (torch.float32, torch.bfloat16)]
    config = load_folder(folder)[0].config
    assert scales == [config.d_model**-0.5 if getattr(config, "scale_decoder_outputs", False) else 1.0] * 2


def test_what_is_exported_is_the_model(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = load_folder(folder)
    save(model, tokenizer, tmp_path / "again")
    again, _ = load_folder(tmp_path / "again")
    asked = {"input_ids": torch.arange(4, 9)[None], "decoder_input_ids": torch.arange(5, 8)[None]}
    with torch.inference_mode():
        assert torch.equal(model(**asked).logits, again(**asked).logits)


def test_a_batch_without_rows_counts_nothing_and_moves_nothing(folder: Path, rows: Rows) -> None:
    model, _ = load_folder(folder)
    student = Student(ResponseModel(model))
    total, _ = student(Objective(0.0, model.config.vocab_size), collate(rows, [], student.model.start), None)
    total.backward()
    assert float(total.detach()) == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


@pytest.mark.slow
def test_an_answer_is_the_models_own_and_does_not_depend_on_its_batch(folder: Path, rows: Rows) -> None:
    model, tokenizer = load_folder(folder)
    whole: Any = model
    prompts = [rows.input_ids(row)[: int(rows.prompt_lengths[row])] for row in (0, 7, 4)]
    together = generate_greedy(model, tokenizer, prompts, 9)
    for prompt, answer in zip(prompts, together, strict=True):
        assert answer == generate_greedy(model, tokenizer, [prompt], 9)[0]
        [own] = whole.generate(input_ids=torch.tensor([prompt]), max_new_tokens=9, do_sample=False).tolist()
        assert own[1 : 1 + len(answer)] == answer
        assert len(answer) == 9 or own[1 + len(answer)] == tokenizer.eos_token_id
    asked = [Prompt(i, ids, "", "", [], []) for i, ids in enumerate(prompts)]
    sample = open_decoding("sampled", {"temperature": 1.0, "top_p": None, "seed": 0})
    drawn = sample(model, tokenizer, asked, 9)
    assert drawn == [sample(model, tokenizer, [one], 9)[0] for one in asked]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["t5", "bart"])
def test_choices_are_scored_as_lm_eval_scores_them(case: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "m", case)
    benchmark = Benchmark(setting(write_task(tmp_path / "task", QUESTIONS), folder))
    ours = {row["request"]: row for row in answers(benchmark, folder)}
    model, tokenizer = load_folder(folder)
    lm: Any = HFLM(pretrained=model, tokenizer=tokenizer, backend="seq2seq", batch_size=4)  # type: ignore[arg-type]
    for i, (value, greedy) in enumerate(lm.loglikelihood(benchmark.requests, disable_tqdm=True)):
        assert (ours[i]["loglikelihood"], ours[i]["greedy"]) == (pytest.approx(value, abs=1e-4), greedy)
    context, choice = benchmark.requests[1].args  # written out: the context in the encoder, the choice in the decoder
    asked, wanted = tokenizer(context).input_ids, tokenizer(choice, add_special_tokens=False).input_ids
    begun = torch.tensor([[model.config.decoder_start_token_id, *wanted[:-1]]])
    assert asked[-1] == tokenizer.eos_token_id
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([asked]), decoder_input_ids=begun).logits[0].log_softmax(-1)
    value = float(sum(logits[i, token] for i, token in enumerate(wanted)))
    assert ours[1]["loglikelihood"] == pytest.approx(value, abs=1e-4)
    scores, _, details = benchmark.scores(list(ours.values()))
    assert scores["acc"]["n"] == len(QUESTIONS)
    assert details["truncated"] == 0


def loop_of(folder: Path, rows: Rows, model: Any = None, **changes: Any) -> Loop:
    torch.manual_seed(0)
    model = model or load_folder(folder)[0]
    settings = replace(SETTINGS, **{"alpha": 0.0, "length": 3.0, **changes})
    return Loop(ResponseModel(model), rows, settings, signal=None, vocab_size=10_000, ranks=Ranks(), micro_batch=2)


@pytest.mark.slow
def test_rows_are_padded_by_themselves_and_learned(folder: Path, rows: Rows) -> None:
    loop, padded = loop_of(folder, rows, lr=1e-2), loop_of(folder, rows, lr=1e-2, packing=False)
    assert loop.padded is not None
    assert "its encoder reads the prompts apart" in loop.padded
    assert padded.padded is None
    before = loop.heldout(4)["heldout_ce"]
    assert [step["loss"] for step in loop.steps()] == [step["loss"] for step in padded.steps()]
    assert math.isfinite(before)
    assert loop.heldout(4)["heldout_ce"] < before
    assert loop.heldout(1)["heldout_ce"] == pytest.approx(loop.heldout(4)["heldout_ce"], rel=1e-5)


@pytest.mark.slow
def test_adapters_are_merged_into_the_plain_model(folder: Path, rows: Rows) -> None:
    adapted = with_lora(load_folder(folder)[0], rank=4)
    loop = loop_of(folder, rows, adapted, lr=1e-2, rank=4, method="lora")
    losses = [step["loss"] for step in loop.steps()]
    assert len(losses) == 3
    kept, asked = merged(folder, 4, loop.engine.weights()), {"input_ids": torch.arange(4, 9)[None]}
    asked["decoder_input_ids"] = torch.arange(5, 8)[None]
    plain = load_folder(folder)[0]
    with torch.inference_mode():
        found = kept.eval()(**asked).logits
        torch.testing.assert_close(found, adapted.eval()(**asked).logits, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(found, plain(**asked).logits, atol=1e-3)


def test_layers_are_not_cut_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"student\.drop_layers: layers of T5For\w+, an encoder-decoder; leave it out"):
        cut(write_encoder_decoder(tmp_path / "m"), tmp_path / "cut", 0, 1, "student.drop_layers")
