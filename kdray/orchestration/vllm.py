"""Answers by vLLM through ray.data.llm, for GPUs: `engine: vllm` of `score` or `augment`. Prompts and answers are token
ids.

A model's missing prompts are one Ray Data pipeline. There are as many at once as there are engines for, so that every
GPU has a model of its own and each is loaded once; the last few models, or a single one, may have several engines.
Batches are kept as those of the other engine are, so the unit of resume is the same.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from kdray.models.generation import ends_of
from kdray.models.load import load_tokenizer, weight_bytes
from kdray.orchestration.items import PromptBatch
from kdray.orchestration.pools import deal_out
from kdray.orchestration.resources import Resources
from kdray.spec.errors import InputError
from kdray.spec.folders import read_config, window_of
from kdray.store.done import require_intact

BATCH = 64  # prompts in a request to an engine, which makes its own batches
NOTHING_ASKED = "a prompt without a token"
VllmAnswer = list[int] | str  # token ids, or why there are none
Keep = Callable[
    [PromptBatch, list[VllmAnswer], float, Any], None
]  # with the seconds that the answers took, and the tokenizer


def answer_by_vllm(
    groups: Mapping[Path, Sequence[PromptBatch]], keep: Keep, resources: Resources, ends: Sequence[int] = ()
) -> Iterator[tuple[str, str]]:
    """(key, error or "") of every item, as they are kept; `groups` are items by the folder of their model.

    An answer ends before one of the model's own ends, or one of `ends`. `keep` is called by several threads.

    Raises:
        InputError: there is no GPU.
    """
    if not resources.gpus:
        raise InputError("engine", "vllm without a GPU", "use transformers")
    by_width, work = defaultdict[int, list[Path]](list), dict[Path, int]()
    for model, items in groups.items():
        try:
            require_intact(model)
            width = split_evenly(read_config(model), items[0].gpus)
            work[model] = weight_bytes(model) * sum(len(item.rows) * item.max_new_tokens for item in items)
        except Exception as failure:  # noqa: BLE001 - reported by key; the other models go on
            yield from _failed(items, failure)
        else:
            by_width[width].append(model)
    for width, models in sorted(by_width.items(), reverse=True):  # at once they would wait for each other's GPUs
        models.sort(key=lambda model: -work[model])
        places = max(1, resources.actors(width))  # without one, the answer is why
        yield from _side_by_side(
            models, places, lambda model, engines: _answer(model, groups[model], keep, engines, resources, ends)
        )


def _side_by_side(
    models: Sequence[Path], engines: int, answer: Callable[[Path, int], Iterator[tuple[str, str]]]
) -> Iterator[tuple[str, str]]:
    """What `answer` tells of every model, as it comes, each with as many engines as it may have: a thread for each of
    the `engines` takes one model after the other.
    """
    left, told = (
        iter(zip(models, deal_out(engines, len(models)), strict=True)),
        queue.SimpleQueue[tuple[str, str] | None](),
    )

    def work() -> None:
        try:
            for model, count in left:
                for kept in answer(model, count):
                    told.put(kept)
        finally:
            told.put(None)

    threads = min(engines, len(models))
    for _ in range(threads):
        threading.Thread(target=work, name="kdray-vllm", daemon=True).start()
    for _ in range(threads):
        yield from iter(told.get, None)


def _answer(
    model: Path, items: Sequence[PromptBatch], keep: Keep, engines: int, resources: Resources, ends: Sequence[int]
) -> Iterator[tuple[str, str]]:
    """(key, error or "") of every item of one model, each kept as soon as its last prompt is answered."""
    left, since = dict(enumerate(items)), time.perf_counter()
    try:
        tokenizer = load_tokenizer(model)
        settings = GenerationConfig.from_pretrained(model) if (model / "generation_config.json").is_file() else None
        for i, answers in _answers(model, items, [*ends_of(settings, tokenizer), *ends], engines, resources):
            item, now = left.pop(i), time.perf_counter()
            try:
                keep(item, answers, now - since, tokenizer)
            except Exception as failure:  # noqa: BLE001 - reported by key; the other items go on
                yield from _failed([item], failure)
            else:
                yield item.key, ""
            since = now
        if left:
            raise RuntimeError("vllm left prompts without an answer")
    except Exception as failure:  # noqa: BLE001 - as above; the other models go on
        yield from _failed(left.values(), failure)


def _failed(items: Iterable[PromptBatch], failure: Exception) -> Iterator[tuple[str, str]]:
    yield from ((item.key, f"{type(failure).__name__}: {failure}") for item in items)


def sampling_of(item: PromptBatch, ends: Sequence[int]) -> dict[str, Any]:
    """vLLM's parameters for a decoding of ours, greedy or sampled, up to a token of `ends`."""
    given = item.decoding["params"]
    return {
        # A greedy answer reads neither top_p nor seed, but has them: requests of both kinds share a table, which would
        # fill the gaps with nulls, and vLLM refuses those.
        "temperature": float(given.get("temperature", 0.0)),
        "top_p": float(given.get("top_p") or 1.0),
        "seed": given.get("seed", 0),
        "max_tokens": item.max_new_tokens,
        "stop_token_ids": list(ends),
    }


def engine_arguments(model: Path, items: Sequence[PromptBatch]) -> dict[str, Any]:
    """vLLM's own arguments for an engine that answers all of `items`, on one GPU or several of a node."""
    gpus = split_evenly(read_config(model), items[0].gpus)
    longest = max(len(prompt.input_ids) + item.max_new_tokens for item in items for prompt in item.read())
    return {
        "dtype": items[0].dtype,
        "generation_config": "vllm",  # not the model's own penalties and temperatures
        # Else an engine starts only where there is room for an answer as long as the whole window.
        "max_model_len": min(longest, window_of(model) or longest),
        "enable_prefix_caching": True,  # examples and instructions are the same before every question
        "tensor_parallel_size": gpus,
        # With Ray's own the placement group of a finished engine stays, and its GPUs with it.
        **({"distributed_executor_backend": "mp"} if gpus > 1 else {}),
    }


def split_evenly(config: Mapping[str, Any], gpus: int) -> int:
    """The fewest GPUs, `gpus` at least, that a model's attention heads can be dealt out to, equally many to each, and
    likewise its heads of keys, each of which may be on several instead. `config` as `read_config` gives it.
    """
    heads = config.get("num_attention_heads")
    if not heads or gpus == 1:
        return gpus
    keys = config.get("num_key_value_heads") or heads
    fitting = [n for n in range(gpus, heads + 1) if heads % n == 0 and (keys % n == 0 or n % keys == 0)]
    return fitting[0] if fitting else gpus


def _answers(
    model: Path, items: Sequence[PromptBatch], ends: Sequence[int], engines: int, resources: Resources
) -> Iterator[tuple[int, list[VllmAnswer]]]:
    """Of every item its number and the answers to its prompts in their order, without the token of `ends` that ends
    them; an item as soon as it has all of them.
    """
    import ray.data
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    batches = [item.read() for item in items]
    prompts = [
        {"item": i, "place": j, "tokenized_prompt": prompt.input_ids, "sampling_params": sampling_of(item, ends)}
        for i, (item, batch) in enumerate(zip(items, batches, strict=True))
        for j, prompt in enumerate(batch)
        if prompt.input_ids
    ]
    arguments = engine_arguments(model, items)
    gpus = arguments["tensor_parallel_size"]
    if not resources.actors(gpus):
        raise InputError("engine", f"vllm with {gpus} GPUs of one node", f"the largest has {max(resources.units)}")
    config = vLLMEngineProcessorConfig(
        model_source=str(model),
        engine_kwargs=arguments,
        concurrency=max(1, min(engines, -(-len(prompts) // BATCH))),
        accelerator_type=resources.accelerator,
        batch_size=BATCH,
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        should_continue_on_error=True,
    )
    found: list[dict[int, VllmAnswer]] = [
        {j: prompt.refused or NOTHING_ASKED for j, prompt in enumerate(batch) if not prompt.input_ids}
        for batch in batches
    ]
    yield from ((i, list(answers.values())) for i, answers in enumerate(found) if len(answers) == len(batches[i]))
    for row in build_processor(config)(ray.data.from_items(prompts)).iter_rows():
        i, error, tokens = row["item"], row["__inference_error__"], map(int, row["generated_tokens"])
        found[i][row["place"]] = (
            str(error) if error else list(itertools.takewhile(lambda token: token not in ends, tokens))
        )
        if len(found[i]) == len(batches[i]):
            yield i, [found[i][j] for j in range(len(batches[i]))]
