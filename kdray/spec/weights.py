"""Whether a folder holds the whole weights of a plain model, by the names of its files, its configuration and headers
alone.

Nothing here loads a model, so what only a model's code knows (every name, every shape) is left to
`kdray.models.weights`, which asks it when a model is laid down. Names of weights are those in the headers.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kdray.spec.errors import InputError
from kdray.spec.folders import CONFIG, read_config, read_object

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
MERGE = "merge it into the model first (peft: merge_and_unload, then save_pretrained) and give that folder"
PLAIN = "give the model's plain weights, or a GGUF file, which is dequantised"
FLOATS = ("F64", "F32", "F16", "BF16")
PACKED = {
    "qweight",
    "qzeros",
    "g_idx",
    "absmax",
    "quant_map",
    "SCB",
    "weight_packed",
    "weight_scale",
    "weight_scale_inv",
}
# what a wrapper leaves in the names of the weights that it saves: anywhere, or only as the first part of one
WRAPPERS = {
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
    "_forward_module": "Lightning",
}
OUTER = {"module": "DataParallel, DDP or DeepSpeed", "base_model": "peft"}
LAYER = re.compile(r"(.*?(?:^|\.)(?:layers|layer|h|blocks|block))\.(\d+)\.")
COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
MORE = ("num_nextn_predict_layers", "mtp_num_hidden_layers")  # layers behind the last one, which predict further tokens
EMBEDDINGS = ("embed_tokens.weight", "embed_in.weight", "wte.weight", "word_embeddings.weight")
NOT_CAUSAL = re.compile(
    r"For(MaskedLM|PreTraining|\w*Classification|QuestionAnswering|MultipleChoice|CTC|\w*Detection|\w*Segmentation)$"
)


class Tensor(NamedTuple):
    """A weight as its header has it."""

    dtype: str
    shape: tuple[int, ...]


def check_names(names: Collection[str], field: str, shown: str) -> None:
    """Raise InputError unless a folder with these files, called `shown`, may hold a model: no adapter, and weights that
    are read.
    """
    check_no_adapter(names, field, shown)
    if CONFIG not in names:
        raise InputError(field, f"no {CONFIG} in {shown}", "give a Hugging Face model folder")
    if WEIGHTS in names or INDEX in names:
        return
    if shards := sorted(filter(SHARD.fullmatch, names)):
        raise InputError(
            field, f"no {INDEX} in {shown}", f"it says what is in {shards[0]} and the other shards: fetch it too"
        )
    other = sorted(name for name in names if name.endswith((".safetensors", ".gguf", ".onnx")))
    found = f"no weights in {shown}" + (f" ({other[0]} is not read)" if other else "")
    gguf = next((name for name in other if name.endswith(".gguf")), None)
    pickled = (
        "it needs *.safetensors" if gguf is None else f"it needs *.safetensors, or name the file itself: .../{gguf}"
    )
    raise InputError(field, found, f"{pickled} ({WEIGHTS}, or shards and {INDEX}; pickled weights are not read)")


def check_no_adapter(names: Collection[str], field: str, shown: str) -> None:
    """Raise InputError where an adapter is among these files: alone it is no model, and beside one it would be loaded
    unseen.
    """
    if adapters := [name for name in ADAPTERS if name in names]:
        raise InputError(field, f"an adapter ({adapters[0]}) in {shown}", MERGE)


def weight_files(folder: Path, field: str, shown: str = "") -> list[Path]:
    """The files that hold the weights of the model in a folder: those that are read, and no others.

    Raises:
        InputError: a shard that the index names is not there, the index is damaged, or there are two sets of weights.
    """
    shown = shown or str(folder)
    if not (folder / INDEX).is_file():
        return [folder / WEIGHTS]
    shards = shards_of(folder, field, shown)
    if missing := [name for name in shards if Path(name).name != name or not (folder / name).is_file()]:
        raise InputError(field, f"no {missing[0]} in {shown}", f"{INDEX} names it")
    if (folder / WEIGHTS).is_file() and WEIGHTS not in shards:
        raise InputError(field, f"two sets of weights in {shown}", f"keep {WEIGHTS}, or {INDEX} and its shards")
    return [folder / name for name in shards]


def shards_of(folder: Path, field: str, shown: str) -> list[str]:
    """The files that a folder's index names."""
    return sorted(set(_index(folder, field, shown).values()))


def check_config_is_plain(config: Mapping[str, Any], field: str, shown: str, *, language: bool) -> None:
    """Raise InputError where a configuration says that weights are quantised or, if `language`, that this is no model
    that writes: neither a causal one nor an encoder-decoder.
    """
    if quantised := config.get("quantization_config") or config.get("compression_config"):
        method = quantised.get("quant_method") if isinstance(quantised, dict) else None
        raise InputError(field, f"weights quantised by {method or 'some method'} in {shown}", PLAIN)
    if (named := config.get("transformers_weights")) is not None and named not in (WEIGHTS, INDEX):
        raise InputError(field, f"weights in {named} by the config.json in {shown}", f"name the file {WEIGHTS}")
    if not language:
        return
    architectures = config.get("architectures")
    for name in architectures if isinstance(architectures, list) else ():
        if isinstance(name, str) and NOT_CAUSAL.search(name):
            raise InputError(field, f"a {name} in {shown}", "give a causal language model, or an encoder-decoder")


def check_weights(folder: Path, field: str, shown: str = "", *, language: bool = True) -> None:
    """Raise InputError unless a folder, called `shown`, holds whole plain weights, as far as headers and configuration
    tell.

    `language`: of a language model that writes, and not of an encoder or whatever a metric scores with.
    """
    shown, called = shown or str(folder), shown
    check_names([path.name for path in folder.iterdir()], field, shown)
    config = read_config(folder, field, called)
    check_config_is_plain(config, field, shown, language=language)
    tensors = read_headers(folder, field, shown)
    for name, tensor in tensors.items():
        _check_tensor(name, tensor, field, shown)
    _check_layers(tensors, config, field, shown)
    if language:
        _check_embeddings(tensors, config, field, shown)


def read_headers(folder: Path, field: str, shown: str = "") -> dict[str, Tensor]:
    """All weights of the model in a folder by name.

    Raises:
        InputError: a file is not whole, or the index and its shards disagree.
    """
    shown = shown or str(folder)
    found: dict[str, Tensor] = {}
    for path in weight_files(folder, field, shown):
        tensors = _header(path)
        if not tensors:
            where = path if shown == str(folder) else f"{path.name} in {shown}"
            raise InputError(
                field, f"{where} is no whole safetensors file", "fetch it again (a git-lfs pointer: `git lfs pull`)"
            )
        if twice := sorted(found.keys() & tensors.keys()):
            raise InputError(
                field, f"{twice[0]} in two shards of {shown}", "fetch the shards of one and the same model"
            )
        found |= tensors
    if (folder / INDEX).is_file():
        named = _index(folder, field, shown).keys()
        if missing := sorted(named - found.keys()):
            raise InputError(field, f"no {missing[0]} in the shards of {shown}{and_more(missing)}", f"{INDEX} names it")
        if extra := sorted(found.keys() - named):
            raise InputError(
                field, f"{extra[0]} in the shards of {shown}{and_more(extra)}", f"{INDEX} does not name it"
            )
    return found


def _index(folder: Path, field: str, shown: str) -> dict[str, str]:
    """The shard that each weight is in."""
    shards = read_object(folder / INDEX, field, "give the index of the model", f"{shown}: {INDEX}").get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise InputError(field, f"{shown}: {INDEX} is damaged (no weight_map)", "give the index of the model")
    return shards


def _header(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file: JSON behind its length in eight bytes, and exactly the bytes that it
    describes.

    Empty for a file that is not whole.
    """
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        length, size = int.from_bytes(file.read(8), "little"), path.stat().st_size
        if length + 8 > size:
            return {}
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            ends = [tensor["data_offsets"][1] for tensor in header.values()]
            if not ends or max(ends) != size - 8 - length:
                return {}
            return {name: Tensor(str(tensor["dtype"]), tuple(tensor["shape"])) for name, tensor in header.items()}
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return {}


def _check_tensor(name: str, tensor: Tensor, field: str, shown: str) -> None:
    parts = name.split(".")
    wrapper = next((part for part in parts if part in WRAPPERS), parts[0] if parts[0] in OUTER else None)
    if wrapper is not None:
        by = (WRAPPERS | OUTER)[wrapper]
        raise InputError(
            field, f"a weight called {name} in {shown}", f"it was saved wrapped ({by}): save the model inside"
        )
    if "lora_A" in parts or "lora_B" in parts or "base_layer" in parts:
        raise InputError(field, f"an adapter's weight {name} in {shown}", MERGE)
    packed = parts[-1] in PACKED or (parts[-1] == "weight" and tensor.dtype not in FLOATS)
    if packed or tensor.dtype.startswith(("F8", "F6", "F4")):
        raise InputError(field, f"quantised weights ({name}: {tensor.dtype}) in {shown}", PLAIN)


def _check_layers(tensors: Iterable[str], config: Mapping[str, Any], field: str, shown: str) -> None:
    """Whether a model with one stack of layers has as many as its configuration says."""
    count = next((config[name] for name in COUNTS if type(config.get(name)) is int), None)
    stacks = defaultdict(set)
    for found in filter(None, map(LAYER.match, tensors)):
        stacks[found[1]].add(int(found[2]))
    if count is None or len(stacks) != 1:
        return
    [numbers] = stacks.values()
    if missing := sorted(set(range(count)) - numbers):
        raise InputError(
            field,
            f"no weights of layer {missing[0]} in {shown}{and_more(missing)}",
            f"its config.json says {count} layers",
        )
    behind = sum(config[name] for name in MORE if type(config.get(name)) is int)
    if max(numbers) >= count + behind:
        raise InputError(
            field, f"weights of a layer {max(numbers)} in {shown}", f"its config.json says {count} layers, from 0"
        )


def _check_embeddings(tensors: Mapping[str, Tensor], config: Mapping[str, Any], field: str, shown: str) -> None:
    """Whether a model has an embedding of each token and, if its configuration says that the head is another matrix, a
    head.
    """
    names = [name for name in tensors if name.endswith(EMBEDDINGS)]
    if len(names) != 1:
        return
    shape, vocabulary = tensors[names[0]].shape, config.get("vocab_size")
    if type(vocabulary) is int and shape[0] != vocabulary:
        raise InputError(
            field, f"{names[0]} of shape {list(shape)} in {shown}", f"its config.json says a vocabulary of {vocabulary}"
        )
    heads = [name for name, tensor in tensors.items() if name != names[0] and tensor.shape == shape]
    if config.get("tie_word_embeddings") is False and "text_config" not in config and not heads:
        raise InputError(
            field,
            f"no output head (lm_head.weight) in {shown}",
            "its config.json says tie_word_embeddings: false; save the whole model",
        )


def and_more(names: Sequence[object]) -> str:
    """How many names there are beside the first."""
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
