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
    drawn = {"top_p": given["top_p"] or 1.0, "seed": given["seed"]} if "temperature" in given else {}
    return {
        "temperature": given.get("temperature", 0.0),
        **drawn,
        "max_tokens": item.max_new_tokens,
        "stop_token_ids": list(ends),
    }


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
    gpus = items[0].gpus
    config = vLLMEngineProcessorConfig(
        model_source=str(model),
        engine_kwargs={
            "dtype": items[0].dtype,
            "generation_config": "vllm",  # not the model's own penalties and temperatures
            "tensor_parallel_size": gpus,
        },
        concurrency=max(1, min(resources.actors(gpus), -(-len(prompts) // BATCH))),
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
