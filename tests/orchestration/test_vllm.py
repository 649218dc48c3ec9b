"""Answers by vLLM: what it is asked, and what becomes of what it says. vLLM itself needs a GPU: a stand-in keeps its
columns.
"""

from __future__ import annotations

import functools
import itertools
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdray.artifacts.parts import parts
from kdray.artifacts.rows import Rows
from kdray.models.generation import generate_greedy
from kdray.models.load import load_folder
from kdray.models.loaded import load_as
from kdray.orchestration.items import Part, PromptBatch
from kdray.orchestration.resources import Node, Resources
from kdray.orchestration.vllm import BATCH, answer_by_vllm, engine_arguments, sampling_of, split_evenly
from kdray.score.prompts import Prompt
from kdray.spec.errors import InputError
from kdray.spec.folders import window_of
from kdray.stages.augment import Answerer, ask_vllm
from kdray.stages.generate import Generator, keep
from kdray.store import Key, Store
from tests.answers import prompt_batch
from tests.conftest import ROOT
from tests.store.test_done import changed
from tests.tiny import write_model, write_rows


def item(folder: Path, index: int, texts: list[str], tokenizer: Any) -> PromptBatch:
    prompts = [Prompt(i, tokenizer(text)["input_ids"], "", "", [], []) for i, text in enumerate(texts)]
    return prompt_batch(folder, prompts, index)


def test_what_vllm_is_asked(tmp_path: Path) -> None:
    sampled = {"temperature": 0.9, "top_p": None, "seed": 7}
    batch = prompt_batch(tmp_path, [], max_new_tokens=5)
    asked = sampling_of(replace(batch, decoding={"name": "sampled", "params": sampled}), ends=[2])
    assert asked == {"temperature": 0.9, "top_p": 1.0, "seed": 7, "max_tokens": 5, "stop_token_ids": [2]}
    greedy = sampling_of(batch, ends=[2, 7])
    assert greedy == {"temperature": 0.0, "top_p": 1.0, "seed": 0, "max_tokens": 5, "stop_token_ids": [2, 7]}


def test_greedy_and_sampled_requests_go_through_one_table_as_they_are(tmp_path: Path) -> None:
    batch = prompt_batch(tmp_path, [], max_new_tokens=5)
    sampled = {"name": "sampled", "params": {"temperature": 1, "top_p": 0.9, "seed": 7}}
    asked = [{"sampling_params": sampling_of(one, ends=[2])} for one in (batch, replace(batch, decoding=sampled))]
    assert pa.Table.from_pylist(asked).to_pylist() == asked, "what one of them lacks would come back as null"


@pytest.mark.parametrize(
    ("shape", "gpus", "wanted"),
    [
        ("Llama-3.1-70B-Instruct", 1, 1),
        ("Llama-3.1-70B-Instruct", 2, 2),
        ("Llama-3.1-70B-Instruct", 3, 4),
        ("Llama-3.1-70B-Instruct", 5, 8),
        ("Qwen2.5-32B-Instruct", 2, 2),
        ("Qwen2.5-32B-Instruct", 3, 4),  # 40 heads, of keys 8
        ("Qwen2.5-32B-Instruct", 5, 8),
        ("Llama-2-13b-hf", 3, 4),  # 40 heads, each with its own keys
    ],
)
def test_heads_are_dealt_out_evenly(shape: str, gpus: int, wanted: int) -> None:
    config = json.loads((ROOT / "tests" / "shapes" / f"{shape}.json").read_text())
    assert split_evenly(config, gpus) == wanted


@pytest.mark.parametrize(("gpus", "nodes"), [(1, (2,)), (2, (2, 2)), (3, (4,))])
def test_the_engine_is_told_how_long_and_how_wide_it_must_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: int, nodes: tuple[int, ...]
) -> None:
    """What is given to ray.data.llm passes its own checks."""
    _, tokenizer = load_folder(write_model(tmp_path / "model"))
    given: list[Any] = []

    def look(config: Any) -> Any:
        given.append(config)
        raise RuntimeError("seen enough")

    monkeypatch.setattr("ray.data.llm.build_processor", look)
    (tmp_path / "out").mkdir()
    items = [replace(item(tmp_path / "out", i, text, tokenizer), gpus=gpus) for i, text in enumerate(["Ada", "Ben"])]
    longest = max(len(prompt.input_ids) for one in items for prompt in one.read())
    resources = Resources(tuple(Node(8, count) for count in nodes), 1)
    list(answer_by_vllm({tmp_path / "model": items}, keep, resources))
    arguments, wide = given[0].engine_kwargs, 4 if gpus == 3 else gpus  # of four heads
    assert arguments["max_model_len"] == longest + items[0].max_new_tokens
    assert arguments["tensor_parallel_size"] == wide
    assert arguments.get("distributed_executor_backend") == (None if wide == 1 else "mp")
    assert arguments["enable_prefix_caching"]


def test_no_longer_than_the_models_window(tmp_path: Path) -> None:
    _, tokenizer = load_folder(write_model(tmp_path / "model"))
    window = window_of(tmp_path / "model")
    assert window
    long = replace(item(tmp_path, 0, ["Ada"], tokenizer), model=tmp_path / "model", max_new_tokens=2 * window)
    assert engine_arguments(tmp_path / "model", [long])["max_model_len"] == window


def test_a_model_wider_than_a_node_is_told(tmp_path: Path) -> None:
    _, tokenizer = load_folder(write_model(tmp_path / "model"))
    (tmp_path / "out").mkdir()
    wide = replace(item(tmp_path / "out", 0, ["Ada"], tokenizer), gpus=3)
    told = list(answer_by_vllm({tmp_path / "model": [wide]}, keep, Resources((Node(8, 3), Node(8, 3)), 1)))
    assert told == [("0", "InputError: engine: vllm with 4 GPUs of one node; the largest has 3")]


def test_without_a_gpu_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"engine: vllm without a GPU; use transformers"):
        list(answer_by_vllm({Path("model"): []}, keep, Resources((Node(2, 0),), 1)))


@pytest.mark.slow
def test_its_answers_are_kept_as_those_of_the_other_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = load_folder(write_model(tmp_path / "model"))
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").mkdir()
    batches = [["Ada is in", "Where does Ben live"], ["Oslo"], ["Rome Rome", "lives in now"]]

    class Rows(list[dict[str, Any]]):
        def iter_rows(self) -> list[dict[str, Any]]:
            return list(reversed(self))  # an engine answers in its own order

    def answer(row: dict[str, Any]) -> dict[str, Any]:
        assert row["sampling_params"]["temperature"] == 0.0
        [ids] = generate_greedy(model, tokenizer, [row["tokenized_prompt"]], row["sampling_params"]["max_tokens"])
        failed = row["item"] == 2 and row["place"] == 1
        said = [] if failed else [*ids, tokenizer.eos_token_id, 5]
        return row | {"generated_tokens": said, "__inference_error__": "out of blocks" if failed else ""}

    monkeypatch.setattr("ray.data.from_items", list)
    monkeypatch.setattr("ray.data.llm.build_processor", lambda config: lambda rows: Rows(map(answer, rows)))
    theirs = [item(tmp_path / "theirs", i, texts, tokenizer) for i, texts in enumerate(batches)]
    gpu = Resources((Node(2, 1),), 1)
    told = list(answer_by_vllm({tmp_path / "model": theirs}, keep, gpu))
    assert told == [(str(i), "") for i in (2, 1, 0)], "each as soon as it has all its answers"
    generator = Generator(load_as)
    for i, texts in enumerate(batches):
        generator(item(tmp_path / "ours", i, texts, tokenizer))
    tables = [
        [pq.read_table(path).to_pylist() for path in parts(tmp_path / side).values()] for side in ("theirs", "ours")
    ]
    for mine, other in zip(*(itertools.chain(*side) for side in tables), strict=True):
        if mine["error"]:
            assert (mine["error"], mine["answer"], mine["example"]) == ("out of blocks", "", 1)
        else:
            assert mine == other


def test_a_model_that_an_engine_cannot_load_is_told_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, tokenizer = load_folder(write_model(tmp_path / "model"))
    (tmp_path / "out").mkdir()
    one = item(tmp_path / "out", 0, ["Ada"], tokenizer)

    def refuse(config: Any) -> Any:
        raise RuntimeError("no such architecture")

    monkeypatch.setattr("ray.data.llm.build_processor", refuse)
    groups = {tmp_path / "model": [one, replace(one, key="1")]}
    errors = list(answer_by_vllm(groups, keep, Resources((Node(2, 1),), 1)))
    assert errors == [("0", "RuntimeError: no such architecture"), ("1", "RuntimeError: no such architecture")]


def test_a_model_that_is_not_what_was_sealed_comes_into_no_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Store(tmp_path / "store").begin(Key("student", "a", "0" * 12), {})
    _, tokenizer = load_folder(write_model(attempt.path))
    made = attempt.seal()
    changed(made.path / "model.safetensors", 4000)
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("ray.data.llm.build_processor", lambda config: pytest.fail("an engine was built"))
    groups = {made.path: [item(tmp_path / "out", 0, ["Ada"], tokenizer)]}
    [(key, error)] = answer_by_vllm(groups, keep, Resources((Node(2, 1),), 1))
    assert key == "0"
    assert error.endswith(
        f"model.safetensors: damaged (not what was sealed); remove the folder {made.folder} and run again"
    )


class Answered(list[dict[str, Any]]):
    """A data set that has been through an engine."""

    def iter_rows(self) -> list[dict[str, Any]]:
        return self


def said(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"generated_tokens": row["tokenized_prompt"], "__inference_error__": ""}


@pytest.fixture
def some_models(tmp_path: Path) -> dict[Path, list[PromptBatch]]:
    """Three models, of which the second has most to answer."""
    groups = {}
    for i, batches in enumerate((1, 3, 2)):
        folder = tmp_path / str(i)
        _, tokenizer = load_folder(write_model(folder / "model", layers=1))
        (folder / "out").mkdir()
        groups[folder / "model"] = [
            replace(item(folder / "out", j, ["Ada is in"], tokenizer), key=f"{i}.{j}") for j in range(batches)
        ]
    return groups


def test_models_are_answered_side_by_side_one_on_each_gpu(
    some_models: dict[Path, list[PromptBatch]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as there are GPUs wait for each other here: one after the other, none would be answered."""
    at_once, engines = threading.Barrier(3), []

    def build(config: Any) -> Any:
        engines.append(config.concurrency)
        at_once.wait(60)
        return lambda rows: Answered(map(said, rows))

    monkeypatch.setattr("ray.data.from_items", list)
    monkeypatch.setattr("ray.data.llm.build_processor", build)
    told = list(answer_by_vllm(some_models, keep, Resources((Node(8, 1), Node(8, 2)), 1)))
    assert sorted(told) == [(key, "") for key in ("0.0", "1.0", "1.1", "1.2", "2.0", "2.1")]
    assert engines == [1, 1, 1]
    for items in some_models.values():
        assert len(parts(items[0].target)) == len(items)


def test_the_longest_comes_first_and_a_model_that_fails_takes_no_other_with_it(
    some_models: dict[Path, list[PromptBatch]], monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []

    def build(config: Any) -> Any:
        order.append(Path(config.model_source).parent.name)
        if order[-1] == "1":
            raise RuntimeError("no such architecture")
        return lambda rows: Answered(map(said, rows))

    monkeypatch.setattr("ray.data.from_items", list)
    monkeypatch.setattr("ray.data.llm.build_processor", build)
    (next(iter(some_models)) / "config.json").write_text("{")
    told = dict(answer_by_vllm(some_models, keep, Resources((Node(8, 1),), 1)))
    assert order == ["1", "2"]
    assert told.pop("0.0").startswith("InputError: ")
    assert told == {f"1.{j}": "RuntimeError: no such architecture" for j in range(3)} | {"2.0": "", "2.1": ""}


@pytest.mark.parametrize(
    ("failure", "error"),
    [(ValueError("lost"), "ValueError: lost"), (None, "RuntimeError: vllm left prompts without an answer")],
)
def test_what_is_answered_is_kept_before_an_engine_breaks_down_or_leaves_prompts_out(
    failure: Exception | None, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Answered):
        def iter_rows(self) -> Any:
            yield from self[:3]
            if failure:
                raise failure

    _, tokenizer = load_folder(write_model(tmp_path / "model", layers=1))
    monkeypatch.setattr("ray.data.from_items", list)
    monkeypatch.setattr("ray.data.llm.build_processor", lambda config: lambda rows: Broken(map(said, rows)))
    (out := tmp_path / "out").mkdir()
    items = [item(out, 0, [""], tokenizer), *(item(out, i, ["Ada", "Ben"], tokenizer) for i in (1, 2))]
    told = list(answer_by_vllm({tmp_path / "model": items}, keep, Resources((Node(2, 1),), 1)))
    assert told == [("0", ""), ("1", ""), ("2", error)]
    assert [*parts(out)] == [0, 1]


def test_a_model_alone_has_all_engines_that_its_prompts_are_enough_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, tokenizer = load_folder(write_model(tmp_path / "model", layers=1))
    (tmp_path / "out").mkdir()
    engines = []

    def build(config: Any) -> Any:
        engines.append(config.concurrency)
        return lambda rows: Answered(map(said, rows))

    monkeypatch.setattr("ray.data.from_items", list)
    monkeypatch.setattr("ray.data.llm.build_processor", build)
    for gpus, prompts in ((2, 3 * BATCH), (4, 3 * BATCH), (4, 1)):
        one = item(tmp_path / "out", 0, ["Ada"] * prompts, tokenizer)
        assert list(answer_by_vllm({tmp_path / "model": [one]}, keep, Resources((Node(8, gpus),), 1))) == [("0", "")]
    assert engines == [2, 3, 1]


def test_the_teachers_answers_are_kept_as_those_of_the_other_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load_folder(write_model(tmp_path / "model"))
    rows = Rows(write_rows(tmp_path / "rows", tokenizer))
    end = tokenizer.encode("Rome")[0]  # where rows end that another tokenizer made
    failing: list[int] = []

    def answer(row: dict[str, Any]) -> dict[str, Any]:
        assert end in row["sampling_params"]["stop_token_ids"]
        [ids] = generate_greedy(
            model, tokenizer, [row["tokenized_prompt"]], row["sampling_params"]["max_tokens"], [end]
        )
        return row | {
            "generated_tokens": [*ids, end],
            "__inference_error__": "out of blocks" if row["item"] in failing else "",
        }

    monkeypatch.setattr("ray.data.from_items", list)
    monkeypatch.setattr("ray.data.llm.build_processor", lambda config: lambda rows: Answered(map(answer, rows)))
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").mkdir()
    cuts, resources = [[3, 1], [2]], Resources((Node(2, 1),), 1)
    ask = functools.partial(
        ask_vllm,
        tmp_path / "model",
        {"compute": "float32", "max_new_tokens": 6},
        rows,
        tmp_path / "prompts.arrow",
        [end],
        resources,
    )

    def items(side: str) -> list[Part]:
        return [Part(key=str(i), index=i, rows=cut, target=tmp_path / side) for i, cut in enumerate(cuts)]

    assert list(ask(items("theirs"))) == [("0", ""), ("1", "")]
    answerer = Answerer(tmp_path / "model", "float32", tmp_path / "rows", 6, [end])
    for one in items("ours"):
        answerer(one)
    theirs, ours = (
        [pq.read_table(path).to_pylist() for path in parts(tmp_path / side).values()] for side in ("theirs", "ours")
    )
    assert theirs == ours
    failing.append(1)
    assert list(ask(items("theirs"))) == [("0", ""), ("1", "RuntimeError: out of blocks")]
