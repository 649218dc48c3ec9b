"""Guided decoding: its features are the definition's, its answers those of a plain loop, and nothing but the prompt
decides.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kdray.artifacts.lens import GUIDE
from kdray.lens.classifier import Lens
from kdray.lens.guided import ChunkChoice, Sampler, decode_guided
from kdray.lens.guides import HiddenGuide, LensGuide, SupportGuide, TextGuide, open_guide
from kdray.models import load_folder
from kdray.models.generation import draw, uniforms
from kdray.score.decodings import open_decoding
from kdray.spec.errors import InputError
from tests.lens.families import tiny
from tests.lens.reference import reference_ratios
from tests.tiny import write_model

PROMPT, CONTEXT, NEW = list(range(5, 25)), 15, 14


def lens(layers=4, heads=4):
    return Lens(torch.randn(layers, heads, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3, 0.1)


def plain_loop(model, score, sampler, ends):
    """The same answer without a cache and without batches: every candidate is drawn and scored by itself."""
    answer, choices = [], []
    numbers = uniforms(PROMPT, sampler.seed, NEW, sampler.candidates)
    while len(answer) < NEW and not (answer and answer[-1] in ends):
        chunks = []
        for candidate in range(sampler.candidates):
            chunk = []
            for step in range(len(answer), min(len(answer) + sampler.chunk, NEW)):
                logits = model(torch.tensor([PROMPT + answer + chunk])).logits[:, -1].float()
                chunk.append(
                    int(draw(logits, numbers[step, candidate : candidate + 1], sampler.temperature, sampler.top_p))
                )
                if chunk[-1] in ends:
                    break
            chunks.append(chunk)
        scores = [score(answer, chunk) for chunk in chunks]
        choices.append(ChunkChoice(chunks, scores, scores.index(max(scores))))
        answer += chunks[choices[-1].kept]
    return (answer[:-1] if answer[-1] in ends else answer), choices


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt_neox"])
@torch.no_grad()
def test_answers_are_those_of_a_plain_loop_over_the_definition(family):
    model, sampler = tiny(family), Sampler(candidates=3, chunk=4, temperature=1.5, seed=3)
    guide = LensGuide(lens())

    def score(answer, chunk):
        ratios = reference_ratios(model, PROMPT + answer + chunk, CONTEXT, len(PROMPT))[len(answer) :]
        return guide.lens.probability(ratios.mean(0)).item()

    own = model.config._attn_implementation
    expected, choices = plain_loop(model, score, sampler, ends={0})
    model.set_attn_implementation(own)
    got = decode_guided(model, PROMPT, CONTEXT, guide, sampler, NEW, {0})
    assert got.answer == expected
    assert [choice.chunks for choice in got.choices] == [choice.chunks for choice in choices]
    for mine, theirs in zip(got.choices, choices, strict=True):
        assert mine.scores == pytest.approx(theirs.scores, abs=1e-5)
    kept = torch.cat(got.seen)
    reference = reference_ratios(model, PROMPT + got.answer, CONTEXT, len(PROMPT))
    assert torch.allclose(kept[: len(got.answer)].double(), reference, atol=1e-5)


def test_an_answer_ends_where_the_kept_candidate_does():
    model, sampler = tiny("llama"), Sampler(candidates=4, chunk=8, temperature=3.0, top_p=None)
    ends = set(range(0, 97, 3))  # a third of all tokens: candidates end at different places
    shortest = SimpleNamespace(
        observe=SupportGuide().observe, score=lambda _, draft: -torch.tensor([len(c) for c in draft.chunks]).float()
    )
    got = decode_guided(model, PROMPT, CONTEXT, shortest, sampler, NEW, ends)
    chunks = got.choices[0].chunks
    assert len({len(chunk) for chunk in chunks}) > 1
    assert len(got.choices) == 1
    assert got.answer == min(chunks, key=len)[:-1]
    for chunk in chunks:
        assert chunk[-1] in ends or len(chunk) == 8
        assert not ends & set(chunk[:-1])


@pytest.mark.parametrize("chunk", [4, 8, 16])
def test_chunks_of_any_size_fill_the_answer(chunk):
    model = tiny("llama")
    got = decode_guided(model, PROMPT, CONTEXT, LensGuide(lens()), Sampler(candidates=2, chunk=chunk), NEW, ends=())
    assert len(got.answer) == NEW
    assert [len(choice.chunks[0]) for choice in got.choices] == [min(chunk, NEW - at) for at in range(0, NEW, chunk)]


@pytest.mark.parametrize("part", ["residual", "attention"])
@torch.no_grad()
def test_hidden_states_guide_by_the_predicting_queries(part, tmp_path):
    model, sampler = tiny("llama"), Sampler(candidates=3, chunk=4)
    HiddenGuide(torch.randn(32, generator=torch.Generator().manual_seed(2)), 0.3, layer=2, part=part).save(
        tmp_path / "g.safetensors"
    )
    guide = open_guide(tmp_path / "g.safetensors")
    assert isinstance(guide, HiddenGuide)
    got = decode_guided(model, PROMPT, CONTEXT, guide, sampler, 4, ends=())
    for chunk, score in zip(got.choices[0].chunks, got.choices[0].scores, strict=True):
        ids = torch.tensor([PROMPT + chunk])
        kept = []
        module = model.model.layers[1] if part == "residual" else model.model.layers[1].self_attn
        hook = module.register_forward_hook(
            lambda _, __, out, kept=kept: kept.append(out if part == "residual" else out[0])
        )
        model(ids)
        hook.remove()
        mean = kept[0][0, len(PROMPT) - 1 : -1].mean(0)
        assert score == pytest.approx(torch.sigmoid(mean @ guide.weights.double() + 0.3).item(), abs=1e-5)


@torch.no_grad()
def test_support_is_the_gain_from_the_context():
    model, sampler = tiny("llama"), Sampler(candidates=3, chunk=4)
    got = decode_guided(model, PROMPT, CONTEXT, SupportGuide(), sampler, 8, ends=())

    def log_probability(before, chunk):
        logits = model(torch.tensor([before + chunk])).logits[0, len(before) - 1 : -1].log_softmax(-1)
        return logits[range(len(chunk)), chunk].mean().item()

    answer = []
    for choice in got.choices:
        tail = PROMPT[CONTEXT:] + answer
        for chunk, score in zip(choice.chunks, choice.scores, strict=True):
            assert score == pytest.approx(
                log_probability(PROMPT + answer, chunk) - log_probability(tail, chunk), abs=1e-5
            )
        answer += choice.chunks[choice.kept]
    assert len(got.choices) == 2


def test_a_judge_sees_the_document_and_the_answer_so_far(tmp_path):
    model, tokenizer = load_folder(write_model(tmp_path / "m"))
    asked = []

    def judge(document, texts):
        asked.append((document, texts))
        return [-len(text) for text in texts]

    prompt = tokenizer("Ada is in Paris . Where does Ada live?")["input_ids"]
    got = decode_guided(
        model, prompt, 5, TextGuide(judge, tokenizer, "Ada is in Paris ."), Sampler(candidates=3, chunk=4), 8, ends=()
    )
    assert [document for document, _ in asked] == ["Ada is in Paris ."] * 2
    assert all(
        text.startswith(tokenizer.decode(got.answer[:4], skip_special_tokens=True).strip()) for text in asked[1][1]
    )
    assert got.choices[0].kept == min(range(3), key=lambda i: len(asked[0][1][i]))


@pytest.mark.slow
def test_a_grids_answers_do_not_depend_on_their_batch(tmp_path):
    model, tokenizer = load_folder(write_model(tmp_path / "m"))
    lens(layers=3).save(tmp_path / "lens")
    documents = ["Ada is in Paris .", "Ben is in Rome now .", "Cleo lives in Oslo ."]
    prompts = [
        SimpleNamespace(input_ids=tokenizer(f"user {d} Where?<|im_end|>")["input_ids"], source=d) for d in documents
    ]
    settings = {"guide": f"file:{tmp_path / 'lens'}", "candidates": 3, "chunk": 4, "temperature": 1.0}

    def answer(prompts, **changed):
        return open_decoding("lookback_guided", settings | changed)(model, tokenizer, prompts, 10)

    together = answer(prompts)
    assert together == [answer([prompt])[0] for prompt in prompts[::-1]][::-1]
    assert together != answer(prompts, seed=1)
    assert together != answer(prompts, guide="support")
    lost = SimpleNamespace(input_ids=prompts[0].input_ids, source="something else")
    assert answer([lost, prompts[1]]) == [
        "document: it is not in the prompt; a lookback ratio needs a context",
        together[1],
    ]


@pytest.mark.parametrize(
    ("guide", "says"),
    [
        (LensGuide(lens(layers=3)), "3 layers x 4 heads"),
        (HiddenGuide(torch.zeros(32), 0.0, layer=5), "the model has layers 1 to 4"),
        (HiddenGuide(torch.zeros(31), 0.0, layer=1), "31"),
    ],
)
def test_guides_for_other_models_are_refused_before_any_pass(guide, says):
    model = tiny("llama")
    model.forward = None  # type: ignore[assignment]
    with pytest.raises(InputError, match=says):
        decode_guided(model, PROMPT, CONTEXT, guide, Sampler(), NEW, ends=())


def test_files_that_are_no_guides(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="no classifier on hidden states"):
        open_guide(tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="no lens in"):
        open_guide(tmp_path)


def test_a_classifier_on_hidden_states_is_its_weights_and_intercept_alone(tmp_path):
    path, guide = tmp_path / "g.safetensors", HiddenGuide(torch.ones(4), 0.5, layer=1)
    guide.save(path)
    kept = path.read_bytes()
    assert open_guide(path).intercept == 0.5
    for _ in range(8):  # its bytes enter ids
        guide.save(path)
        assert path.read_bytes() == kept
    with safe_open(path, framework="pt") as file:
        said = file.metadata()
    weights = load_file(path)
    for tensors, metadata in (
        (weights | {"scale": torch.ones(4)}, said),  # which nothing would apply
        (weights, {GUIDE: said[GUIDE].replace("residual", "middle")}),
        (weights, {"layer": "1"}),
        (weights, None),
    ):
        save_file(tensors, path, metadata=metadata)
        with pytest.raises(InputError, match=r"^guide: \S+ is no classifier on hidden states; "):
            open_guide(path)
