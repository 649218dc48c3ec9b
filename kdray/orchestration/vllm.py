"""Answers by vLLM through ray.data.llm, for GPUs: `engine: vllm` of `score` or `augment`. Prompts and answers are token
ids.

A model's missing prompts are one Ray Data pipeline over as many engines as there are GPUs. Their batches are kept as
those of the other engine are, so the unit of resume is the same.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from kdray.models.generation import ends_of
from kdray.models.load import load_tokenizer
from kdray.orchestration.items import PromptBatch
from kdray.orchestration.resources import Resources
from kdray.spec.errors import InputError
from kdray.spec.folders import read_config, window_of

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

    An answer ends before one of the model's own ends, or one of `ends`.

    Raises:
        InputError: there is no GPU.
    """
    if not resources.gpus:
        raise InputError("engine", "vllm without a GPU", "use transformers")
    for model, items in groups.items():
        begun, tokenizer = time.perf_counter(), load_tokenizer(model)
        settings = GenerationConfig.from_pretrained(model) if (model / "generation_config.json").is_file() else None
        try:
            answers = _answers(model, items, [*ends_of(settings, tokenizer), *ends], resources)
        except Exception as failure:  # noqa: BLE001 - reported by key; the other models go on
            yield from ((item.key, f"{type(failure).__name__}: {failure}") for item in items)
            continue
        seconds = (time.perf_counter() - begun) / len(answers)
        for item, found in zip(items, answers, strict=True):
            try:
                keep(item, found, seconds, tokenizer)
            except Exception as failure:  # noqa: BLE001 - as above
                yield item.key, f"{type(failure).__name__}: {failure}"
            else:
                yield item.key, ""


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
    model: Path, items: Sequence[PromptBatch], ends: Sequence[int], resources: Resources
) -> list[list[VllmAnswer]]:
    """Of every item the answers to its prompts in their order, without the token of `ends` that ends them."""
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
    if not (places := resources.actors(gpus)):
        raise InputError("engine", f"vllm with {gpus} GPUs of one node", f"the largest has {max(resources.units)}")
    config = vLLMEngineProcessorConfig(
        model_source=str(model),
        engine_kwargs=arguments,
        concurrency=max(1, min(places, -(-len(prompts) // BATCH))),
        accelerator_type=resources.accelerator,
        batch_size=BATCH,
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        should_continue_on_error=True,
    )
    found: dict[int, dict[int, VllmAnswer]] = defaultdict(dict)
    for row in build_processor(config)(ray.data.from_items(prompts)).iter_rows():
        error, tokens = row["__inference_error__"], map(int, row["generated_tokens"])
        found[row["item"]][row["place"]] = (
            str(error) if error else list(itertools.takewhile(lambda token: token not in ends, tokens))
        )
    return [
        [found[i][j] if prompt.input_ids else prompt.refused or NOTHING_ASKED for j, prompt in enumerate(batch)]
        for i, batch in enumerate(batches)
    ]
