"""`fsdp` reads a model once: rank 0 has its weights, the others get their shares of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn
from transformers import AutoModelForCausalLM, Gemma3TextConfig, Qwen2Config

from kdray.artifacts.rows import Rows
from kdray.models.adapters import with_lora
from kdray.models.head import ResponseModel
from kdray.models.load import load_folder
from kdray.orchestration import worker
from kdray.train.engines import Ranks
from kdray.train.loop import Loop
from tests.tiny import write_model, write_rows
from tests.train.test_loop import SETTINGS

pytestmark = pytest.mark.slow
FSDP = {"name": "fsdp", "params": {}}
WORLD, LAYERS = 4, 24
SMALL = {
    "vocab_size": 340,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
# Tied and untied heads, biases, and buffers that no file has: of a rotation by layer type, and a scale of embeddings.
CONFIGS = {
    "qwen": Qwen2Config(**SMALL, tie_word_embeddings=False),
    "gemma": Gemma3TextConfig(**SMALL, head_dim=16, query_pre_attn_scalar=16, sliding_window=512),  # tied
}
CASES = [("llama", False), ("llama", True), *((name, False) for name in CONFIGS)]


def loop_of(folder: Path, name: str, model: Any, ranks: Ranks, *, lora: bool = False) -> Loop:
    rows = Rows(folder / "rows")
    settings = replace(SETTINGS, alpha=0.0, length=3.0, rank=4 if lora else None, method="lora" if lora else "full")
    given: dict[str, Any] = {"signal": None, "vocab_size": 330, "ranks": ranks, "engine": FSDP}
    return Loop(model, rows, settings, **given)


def given_out(folder: Path, name: str, ranks: Ranks, *, lora: bool = False) -> Loop:
    """As the worker of a point makes it."""
    settings = replace(SETTINGS, rank=4 if lora else None, method="lora" if lora else "full")
    job: Any = SimpleNamespace(
        model=folder / name, settings=settings, engine=FSDP, gradient_checkpointing=False, pairs=None
    )
    loaded = worker._load(job, torch.device("cpu"), ranks)
    assert not isinstance(loaded, Exception), loaded
    return loop_of(folder, name, loaded[1], ranks, lora=lora)


def read_everywhere(folder: Path, name: str, ranks: Ranks, *, lora: bool = False) -> Loop:
    model = load_folder(folder / name)[0]
    return loop_of(folder, name, ResponseModel(with_lora(model, 4, SETTINGS.seed) if lora else model), ranks, lora=lora)


def results(loop: Loop) -> tuple[list[dict[str, float]], dict[str, float], dict[str, torch.Tensor]]:
    return list(loop.steps()), loop.heldout(2), loop.engine.weights()


def peak() -> int:
    """The most memory in bytes that this process ever had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def rank_process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORLD)
    ranks, found = Ranks(rank, WORLD), {}
    for case in CASES:
        found[case] = [results(make(folder, case[0], ranks, lora=case[1])) for make in (given_out, read_everywhere)]
    before = peak()
    loop = given_out(folder, "large", ranks)
    found["memory"] = peak() - before
    del loop
    torch.save(found, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given-out")
    write_model(folder / "llama", layers=2)
    write_model(folder / "large", layers=LAYERS, hidden=768)
    tokenizer: Any = load_folder(folder / "llama")[1]
    for name, config in CONFIGS.items():
        torch.manual_seed(3)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    write_rows(folder / "rows", tokenizer, heldout=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")  # what is let go of is given back, and not kept for later
        spawn(rank_process, (folder,), nprocs=WORLD)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[Any, Any]]:
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("case", CASES)
def test_a_model_that_rank_0_gives_out_trains_as_one_that_all_have_read(found: list[dict[Any, Any]], case: Any) -> None:
    for rank in found:
        (curve, heldout, weights), (expected, same, wanted) = rank[case]
        assert curve == expected
        assert heldout == same
        assert weights.keys() == wanted.keys()
        assert all(torch.equal(weights[name], wanted[name]) for name in wanted)


def test_only_rank_0_has_a_whole_model_in_memory(found: list[dict[Any, Any]], folder: Path) -> None:
    copy = sum(path.stat().st_size for path in (folder / "large").glob("*.safetensors"))
    first, *others = (rank["memory"] / copy for rank in found)
    assert first < 1.3
    assert max(others) < 1 / WORLD + 3.5 / LAYERS, "its shares, and what a forward pass gathers: three layers"
