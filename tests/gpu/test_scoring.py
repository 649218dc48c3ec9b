"""Scoring: answers, likelihoods, held-out losses and lookback ratios beside a CPU's, and memory that comes back."""

from __future__ import annotations

import copy
import gc
import random
from pathlib import Path

import pytest
import torch

from kdray.artifacts.rows import Rows
from kdray.distill.signals.online import OnlineTeacher
from kdray.distill.student import Student
from kdray.lens import ratios_of, token_logits
from kdray.models.generation import by_halves, generate_greedy
from kdray.models.head import ResponseModel
from kdray.models.likelihood import SharedPrefix
from kdray.models.load import Latest, load_folder
from kdray.score.heldout import heldout_sums
from tests.gpu import NEEDS_GPU
from tests.gpu.conftest import Figure
from tests.lens.families import FAMILIES, tiny
from tests.lens.reference import reference_ratios
from tests.lens.test_ratios import passage
from tests.models.test_likelihood import MODELS, QUESTIONS, plain
from tests.tiny import write_model, write_rows

pytestmark = NEEDS_GPU
TEXTS = [
    "Where does Ada live?",
    "Name three rivers of Europe.",
    "Summarise in one sentence: It rained in Oslo all day and the market was closed, so that nobody came to town.",
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "Explain to a child why the sky is blue.",
    "List four uses of a paper clip.",
    "Who wrote Hamlet, and when?",
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_answer_does_not_depend_on_its_batch(smollm2: Path, dtype: torch.dtype, figure: Figure) -> None:
    """Of a real model: alone and padded among 16."""
    model, tokenizer = load_folder(smollm2, dtype, "cuda")
    asked = [text + more for text in TEXTS for more in ("", " Be brief.")]
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
        )
        for text in asked
    ]
    together = generate_greedy(model, tokenizer, prompts, 48)
    alone = [generate_greedy(model, tokenizer, [prompt], 48)[0] for prompt in prompts]
    same = sum(a == b for a, b in zip(alone, together, strict=True)) / len(asked)
    pairs = [(a, b) for one, other in zip(alone, together, strict=True) for a, b in zip(one, other, strict=False)]
    figure(f"{str(dtype)[6:]} answers alike alone and among 16", same, at_least=1.0 if dtype == torch.float32 else 0.5)
    figure(f"{str(dtype)[6:]} tokens alike", sum(a == b for a, b in pairs) / len(pairs))


@pytest.mark.parametrize("kind", MODELS)
def test_likelihoods_over_a_shared_prefix_are_one_pass_a_choice(kind: str, figure: Figure) -> None:
    torch.manual_seed(0)
    model = MODELS[kind]().eval()
    for dtype, limit in ((torch.float32, 1e-4), (torch.bfloat16, 0.5)):
        found = SharedPrefix(ResponseModel(copy.deepcopy(model).to("cuda", dtype)))(QUESTIONS)
        exact, worst = copy.deepcopy(model).double(), 0.0
        for question, answers in zip(QUESTIONS, found, strict=True):
            for continuation, (value, _) in zip(question.continuations, answers, strict=True):
                expected, _ = plain(exact, list(question.context), list(continuation))
                worst = max(worst, abs(value - expected))
        figure(f"{kind} {str(dtype)[6:]} log-likelihoods off, nats", worst, at_most=limit)


def test_heldout_losses_are_a_cpus(tmp_path: Path, figure: Figure) -> None:
    tokenizer = load_folder(write_model(tmp_path / "student", hidden=256, seed=2))[1]
    write_model(tmp_path / "teacher", hidden=256, seed=1)
    rows = Rows(write_rows(tmp_path / "rows", tokenizer))
    found = {}
    for device in ("cpu", "cuda"):
        student, teacher = (
            ResponseModel(load_folder(tmp_path / name, device=device)[0]) for name in ("student", "teacher")
        )
        signal = OnlineTeacher(teacher, rows, torch.float32)
        chosen = [rows.heldout.tolist()]
        found[device] = heldout_sums(Student(student), rows, chosen, signal, len(tokenizer), device)
    worst = ((found["cuda"] - found["cpu"]).abs() / found["cpu"]).max()
    figure("held-out sums off a CPU's", float(worst), at_most=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_lookback_ratios_are_their_definition(family: str, figure: Figure) -> None:
    exact = tiny(family)
    batch = [passage(0), passage(1, context=5, tail=1, response=2), passage(2, context=2, tail=7, response=12)]
    expected = [reference_ratios(exact, list(p.input_ids), p.n_context, p.n_prompt).float() for p in batch]
    for dtype, limit in ((torch.float32, 1e-4), (torch.bfloat16, 0.1)):
        model = copy.deepcopy(exact).to("cuda", dtype)
        found = ratios_of(model, batch)
        worst = max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))
        figure(f"{family} {str(dtype)[6:]} ratios off", worst, at_most=limit)
        weights = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
        logits = token_logits(model, batch, weights, 0.5)
        for one, ratios in zip(logits, found, strict=True):
            torch.testing.assert_close(one, 0.5 + (ratios * weights).sum((1, 2)), rtol=1e-3, atol=1e-3)


def test_memory_comes_back_between_models(tmp_path: Path, figure: Figure) -> None:
    folders = [write_model(tmp_path / str(i), hidden=1024, seed=i) for i in range(2)]
    before = torch.cuda.memory_allocated()
    latest = Latest(lambda folder: load_folder(folder, device="cuda")[0])
    taken = []
    for folder in (folders[0], folders[1], folders[0]):
        latest(folder)
        taken.append(torch.cuda.memory_allocated() - before)
    figure("memory of the third model over the first's", taken[2] / taken[0], at_most=1.01)
    del latest
    gc.collect()
    figure("bytes left when all are gone", torch.cuda.memory_allocated() - before, at_most=1 << 20)


def test_a_batch_too_large_for_the_gpu_is_answered_in_halves(tmp_path: Path, figure: Figure) -> None:
    """With a share of the card's memory that has no room for all of it."""
    model, tokenizer = load_folder(write_model(tmp_path / "model", layers=4, hidden=512), device="cuda")
    dice = random.Random(0)
    prompts = [[dice.randrange(2, 300) for _ in range(400)] for _ in range(256)]
    calls: list[int] = []

    def answer(some: list[list[int]]) -> list[list[int]]:
        calls.append(len(some))
        return generate_greedy(model, tokenizer, some, 4)

    expected = [answer([prompt])[0] for prompt in prompts[:4]]
    calls.clear()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (600 << 20)) / total)
    try:
        found = by_halves(answer, prompts)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(found) == len(prompts)
    assert found[:4] == expected
    assert calls[0] == 256
    figure("prompts in the part that fitted", calls[-1], at_most=128)
