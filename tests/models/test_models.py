"""Loading, heads and greedy generation on tiny models of several families."""

from __future__ import annotations

import weakref

import huggingface_hub
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from kdray.models import load, load_folder
from kdray.models.generation import generate_greedy
from kdray.models.head import ResponseModel
from kdray.models.load import Latest, lay_down
from kdray.models.weights import reading
from kdray.spec.errors import InputError
from kdray.spec.refs import parse_reference
from kdray.store import Outer
from tests.tiny import write_model

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 50}


def test_load_takes_a_folder_by_reference(tmp_path):
    model, tokenizer = load(f"file:{write_model(tmp_path / 'm')}")
    assert model.config.num_hidden_layers == 3
    assert tokenizer.eos_token == "<|im_end|>"
    assert not model.training


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_part_is_refused(tmp_path, name):
    folder = write_model(tmp_path / "m")
    (folder / name).rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=str(folder)):
        load(f"file:{folder}")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "model.safetensors",
            b"version https://git-lfs.github.com/spec/v1\n",
            r"model.safetensors in REF is no whole .*",
        ),
        ("model.safetensors", b"", r"model.safetensors in REF is no whole safetensors file; .*"),
        ("config.json", b"{}", r"REF cannot be read \(.+\); give a whole Hugging Face model"),
        ("config.json", b"[]", r"config.json in REF is damaged \(.+\); give the config.json of the model"),
        ("config.json", b"{", r"config.json in REF is damaged \(.+\); give the config.json of the model"),
        ("tokenizer.json", b"[]", r"the tokenizer of REF cannot be read \(.+\); give a whole Hugging Face model"),
    ],
)
def test_a_damaged_folder_is_one_line(tmp_path, name, content, said):
    folder = write_model(tmp_path / "m", layers=1)
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=f"^model: {said.replace('REF', f'file:{folder}')}$"):
        load(f"file:{folder}")


def test_junk_named_gguf_is_one_line(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUFjunk")
    with pytest.raises(InputError, match=r"^student\.model: .*m\.gguf cannot be read \(.+\); give a whole GGUF file"):
        lay_down(
            parse_reference(f"file:{tmp_path}/m.gguf"), Outer(tmp_path / "store"), tmp_path / "out", "student.model"
        )


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_machine_without_memory_is_not_the_models_fault(error):
    with pytest.raises(type(error)), reading("m"):
        raise error


def test_an_id_that_the_hub_does_not_give_is_one_line(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no network\nat all")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(
        InputError, match=r"^model: hf:org/name cannot be read \(no network\); check the id, the network and HF_TOKEN$"
    ):
        load("hf:org/name")


def test_a_model_that_is_not_what_it_was_when_the_run_began_is_refused(tmp_path):
    ref, outer = parse_reference(f"file:{write_model(tmp_path / 'm', layers=1)}"), Outer(tmp_path / "store")
    identity = outer.identify(ref)
    write_model(tmp_path / "m", layers=2)
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=r"^student\.model: .*m has changed since the run began"):
        lay_down(ref, outer, tmp_path / "out", "student.model", language=True, identity=identity)


def test_laying_down_copies_no_pickles(tmp_path):
    folder = write_model(tmp_path / "m")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "modeling.py").write_text("raise SystemExit")
    (tmp_path / "out").mkdir()
    lay_down(parse_reference(f"file:{folder}"), Outer(tmp_path / "store"), tmp_path / "out", "student.model")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "model.safetensors" in names
    assert not names & {"pytorch_model.bin", "modeling.py"}
    load_folder(tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("Llama", {"num_key_value_heads": 2}),
        ("Qwen2", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
        ("Mistral", {"num_key_value_heads": 2, "sliding_window": 4}),
        ("Gemma2", {"num_key_value_heads": 2, "head_dim": 8, "final_logit_softcapping": 3.0}),
        ("Granite", {"num_key_value_heads": 2, "logits_scaling": 4.0}),
        ("Cohere", {"num_key_value_heads": 2, "logit_scale": 0.25}),
        ("GPTNeoX", {}),
        ("Phi", {}),
    ],
)
def test_response_logits_are_the_models_own(name, extra):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(
        **SIZES, initializer_range=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=2, **extra
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    ids, mask = torch.randint(3, 50, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    positions = torch.tensor([[0, 3], [0, 8], [1, 5]])
    with torch.no_grad():
        ours = ResponseModel(model)(ids, mask, positions)
        theirs = model(ids, attention_mask=mask).logits[positions[:, 0], positions[:, 1]]
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_head_that_does_something_else_is_refused(tmp_path):
    model, _ = load_folder(write_model(tmp_path / "m"))
    plain = model.forward

    def doubled(*args, **kwargs):
        output = plain(*args, **kwargs)
        output.logits = output.logits * 2
        return output

    model.forward = doubled
    with pytest.raises(InputError, match="output head"):
        ResponseModel(model)


@torch.no_grad()
def test_an_answer_is_as_long_as_allowed_unless_the_model_ended_it(tmp_path):
    """Whatever ended it, and in a batch whose other answers go on."""
    model, tokenizer = load_folder(write_model(tmp_path / "m", seed=5))
    prompts = [tokenizer(text)["input_ids"] for text in ("Where does Ada live?", "Ben", "Cleo is in Rome . now")]
    plain = [
        model.generate(torch.tensor([p]), do_sample=False, max_new_tokens=12)[0, len(p) :].tolist() for p in prompts
    ]
    assert [len(answer) for answer in plain] == [12, 12, 12]
    end = plain[1][5]
    expected = [answer[: answer.index(end)] if end in answer else answer for answer in plain]
    assert generate_greedy(model, tokenizer, prompts, 12, [end]) == expected
    assert [len(answer) < 12 for answer in expected] == [end in answer for answer in plain]


def test_an_answer_also_ends_where_the_models_own_settings_say_and_these_stay(tmp_path):
    model, tokenizer = load_folder(write_model(tmp_path / "m", seed=5))
    prompt = tokenizer("Ben")["input_ids"]
    [plain] = generate_greedy(model, tokenizer, [prompt], 12)
    turn = next(token for token in plain[3:] if token not in plain[:3])
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, turn]
    for _ in range(2):
        assert generate_greedy(model, tokenizer, [prompt], 12) == [plain[: plain.index(turn)]]
    assert model.generation_config.eos_token_id == [tokenizer.eos_token_id, turn]


@pytest.mark.slow
def test_one_model_is_let_go_before_the_next_is_made():
    class Model:
        pass

    alive, made = weakref.WeakSet(), []

    def make(name):
        made.append(name)
        assert not len(alive), "two at once"
        model = Model()
        alive.add(model)
        return model

    load = Latest(make)
    assert load("a") is load("a")
    load("b")
    load("a")
    assert made == ["a", "b", "a"]


@pytest.mark.slow
def test_greedy_answers_do_not_depend_on_their_neighbours(tmp_path):
    model, tokenizer = load_folder(write_model(tmp_path / "m", seed=5))
    prompts = [tokenizer(text)["input_ids"] for text in ("Where does Ada live?", "Ben", "Cleo is in Rome . now")]
    together = generate_greedy(model, tokenizer, prompts, 12)
    assert together == [generate_greedy(model, tokenizer, [prompt], 12)[0] for prompt in prompts]
    for prompt, answer in zip(prompts, together, strict=True):
        ids = list(prompt)
        for token in answer:
            with torch.no_grad():
                assert token == model(torch.tensor([ids])).logits[0, -1].argmax().item()
            ids.append(token)
        assert len(answer) == 12 or model(torch.tensor([ids])).logits[0, -1].argmax().item() == tokenizer.eos_token_id
