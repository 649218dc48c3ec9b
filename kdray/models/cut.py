"""Cut layers out of a causal language model, so that what is saved is the model with these layers skipped.

A configuration speaks of layers by their number: in lists with an entry a layer, in lists of numbers, and by rules such
as "every fourth layer is of experts". `drop_layers` writes down what is left under the new numbers, builds the model
that this describes without memory, and compares its layers with those that are left. `cut` compares logits as well, of
the saved model and of the whole one whose dropped layers are skipped. A model that fails either is refused.
"""

from __future__ import annotations

import copy
import gc
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from kdray.models.hooks import blocks_of
from kdray.models.load import load_folder, reading, save
from kdray.spec.errors import InputError

# Fields with the numbers of some layers.
NUMBERS = (
    *("attn_layer_indices", "full_attn_idxs", "hybrid_layer_ids", "local_layer_ids"),
    *("mlp_only_layers", "moe_layers", "ple_layer_ids"),
)
# How many of the first layers are of another kind.
FIRST = ("first_k_dense_replace", "max_window_layers", "moe_layer_start_index", "num_dense_layers")
# Where these are not 0, layers read what others, or the embeddings, keep for them.
TIED = ("num_kv_shared_layers", "hidden_size_per_layer_input")
# Lists that may happen to be as long as there are layers, and are of something else.
OF_OTHERS = re.compile("token|time_step|architectures|^mtp_")
# Rules in which layers are counted, for the line that refuses a model.
RULES = re.compile("period|offset|interval|pattern|every|freq|step$|_index$|first_k|inverse_layer|group_size")
OWN_NUMBER = ("layer_idx", "layer_id", "layer_number")  # of a layer, in its modules
PROBE = 16  # tokens that the whole and the cut model read
TOLERANCE = 1e-4  # of the largest logit
OTHERS = "drop other layers, or take another model"


def cut(source: Path, target: Path, first: int, end: int, field: str = "drop_layers") -> None:
    """Write the model in the folder `source`, without its decoder layers [first, end), and its tokenizer into `target`.

    Raises:
        InputError: it has no such layers, or what is saved would not be the model whose layers are skipped.
    """
    whole, tokenizer = load_folder(source)
    require_layers(whole, first, end, field)
    with reading(source, field, OTHERS):
        expected = _skipping(whole, first, end)
    drop_layers(whole, first, end, field)
    save(whole, tokenizer, target)
    kind, config = type(whole).__name__, whole.config
    del whole
    gc.collect()  # memory may have room for one model alone
    with reading(f"{kind} without layers [{first}, {end})", field, OTHERS):
        found = _logits(load_folder(target)[0])
    limit = TOLERANCE * expected.nan_to_num(0.0, 0.0, 0.0).abs().max().item()
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=0.0, atol=limit, equal_nan=True):
        raise _refused(field, first, end, kind, "loaded again, it computes something else", config)


def drop_layers(model: PreTrainedModel, first: int, end: int, field: str = "drop_layers") -> None:
    """Remove the decoder layers [first, end) of `model` in place, keep the others' order, and renumber its
    configuration.

    Raises:
        InputError: the model has no such layers, or no configuration describes what is left. The model is as it was.
    """
    require_layers(model, first, end, field)
    blocks = blocks_of(model)
    kept = [i for i in range(len(blocks)) if not first <= i < end]
    changes = renumbered(_text(model.config), kept)
    if why := _why_not(model, blocks, kept, changes):
        raise _refused(field, first, end, type(model).__name__, why, model.config)
    for i, layer in enumerate(left := [blocks[i] for i in kept]):
        for module in layer.modules():
            for name in OWN_NUMBER:
                if hasattr(module, name):
                    setattr(module, name, i)
    [place] = [name for name, module in model.named_modules() if module is blocks]
    model.set_submodule(place, nn.ModuleList(left))
    _apply(model.config, changes)


def require_layers(model: PreTrainedModel, first: int, end: int, field: str) -> None:
    """Raise InputError unless `model` has the layers [first, end), and others, in one list."""
    if model.config.is_encoder_decoder:
        raise InputError(field, f"layers of {type(model).__name__}, an encoder-decoder", "leave it out")
    count = _text(model.config).num_hidden_layers
    if end > count or end - first >= count:
        raise InputError(field, f"[{first}, {end})", f"the model has the layers 0 to {count - 1}, and one must be left")
    if (found := len(blocks_of(model))) != count:
        told = f"{type(model).__name__} says {count} layers and has a list of {found}"
        raise InputError(field, told, "a model with one list of layers")


def renumbered(config: PretrainedConfig, kept: Sequence[int]) -> dict[str, Any]:
    """The fields of a text model's configuration that speak of layers, as they are where the layers `kept` are all."""
    count, fields = config.num_hidden_layers, config.to_dict()
    places = {old: new for new, old in enumerate(kept)}
    changes: dict[str, Any] = {config.attribute_map.get("num_hidden_layers", "num_hidden_layers"): len(kept)}
    for name, value in fields.items():
        if name in FIRST and isinstance(value, int):
            changes[name] = sum(i < value for i in kept)
        elif name in NUMBERS and isinstance(value, list | tuple):
            changes[name] = [places[i] for i in value if i in places]
        elif isinstance(value, list | tuple) and len(value) == count and not OF_OTHERS.search(name):
            changes[name] = [value[i] for i in kept]
        elif isinstance(value, dict) and value and all(str(key).isdigit() for key in value):
            changes[name] = {str(places[int(key)]): entry for key, entry in value.items() if int(key) in places}
    if "moe_layer_end_index" in fields:  # the last one
        changes["moe_layer_end_index"] = sum(i <= fields["moe_layer_end_index"] for i in kept) - 1
    if (
        "decoder_sparse_step" in fields
    ):  # one of so many layers is of experts, unless a list names it: now all others are named
        step, dense = max(fields["decoder_sparse_step"], 1), fields.get("mlp_only_layers") or []
        changes["mlp_only_layers"] = [new for old, new in places.items() if old in dense or (old + 1) % step]
        changes["decoder_sparse_step"] = 1
    if "attention_layers" in changes and "attention_types" in fields:
        changes["attention_types"] = [[changes["attention_layers"], 1]]  # which these are made of
    if "block_types" in fields:  # repeated over all layers
        types = fields["block_types"]
        changes["block_types"] = [types[i % len(types)] for i in kept]
    return changes


def _why_not(model: PreTrainedModel, blocks: nn.ModuleList, kept: Sequence[int], changes: dict[str, Any]) -> str | None:
    """Why the model that the changed configuration describes has not the layers `kept`; None if it has."""
    before, config = _text(model.config), copy.deepcopy(model.config)
    for name in TIED:
        if getattr(before, name, None):
            return f"its layers depend on each other ({name})"
    try:
        _apply(config, changes)
        with tempfile.TemporaryDirectory() as folder:
            config.save_pretrained(folder)
            config = type(config).from_pretrained(folder, attn_implementation=model.config._attn_implementation)
        with torch.device("meta"):
            made = type(model)(config)
        again = blocks_of(made)
    except Exception as error:  # noqa: BLE001 - whatever a library says to such a configuration is the reason
        return f"it cannot be built ({' '.join(str(error).split())[:200] or type(error).__name__})"
    after = _lists(_text(config))
    for name, value in _lists(before).items():
        if len(value) == len(blocks) and after.get(name) != [value[i] for i in kept]:
            return f"{name} would be another"
    if len(again) != len(kept):
        return f"it would have {len(again)} layers"
    for new, old in enumerate(kept):
        if what := _difference(blocks[old], again[new]):
            return f"layer {old}, then {new}, would be another ({what})"
    return None


def _lists(config: PretrainedConfig) -> dict[str, list[Any]]:
    """The lists of a configuration that may have an entry a layer: of its fields, and of properties made of them."""
    made = [name for name in dir(type(config)) if isinstance(getattr(type(config), name), property)]
    found = {name: getattr(config, name, None) for name in made} | config.to_dict()
    lists = {name: list(value) for name, value in found.items() if isinstance(value, list | tuple)}
    return {name: value for name, value in lists.items() if name not in NUMBERS and not OF_OTHERS.search(name)}


def _difference(ours: nn.Module, theirs: nn.Module) -> str | None:
    """What two layers first differ in, whatever their weights and their own numbers: modules, shapes, plain values."""
    one, other = dict(ours.named_modules()), dict(theirs.named_modules())
    for name in one | other:
        a, b = one.get(name), other.get(name)
        if a is None or b is None or type(a) is not type(b):
            return name or type(ours).__name__
        shapes = [_shapes(a), _shapes(b)]
        values = [_values(a), _values(b)]
        differ = [key for key in shapes[0] | shapes[1] if shapes[0].get(key) != shapes[1].get(key)]
        both = values[0].keys() & values[1].keys()  # some values come with a forward pass
        differ += [key for key in sorted(both) if values[0][key] != values[1][key]]
        if differ:
            return f"{name}.{differ[0]}".lstrip(".")
    return None


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    """Of a module's own weights and buffers."""
    return {name: tensor.shape for name, tensor in (module._parameters | module._buffers).items() if tensor is not None}


def _values(module: nn.Module) -> dict[str, Any]:
    """A module's own plain values, but for its number."""
    plain = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, bool | int | float | str | tuple | None)
    }
    return {name: value for name, value in plain.items() if name[0] != "_" and name not in (*OWN_NUMBER, "training")}


def _apply(config: PretrainedConfig, changes: dict[str, Any]) -> None:
    text = _text(config)
    for name, value in changes.items():
        setattr(text, name, value)


def _text(config: PretrainedConfig) -> PretrainedConfig:
    """The part of a configuration that is about the language model."""
    return config.get_text_config(decoder=True)


def _skipping(model: PreTrainedModel, first: int, end: int) -> Tensor:
    """The logits of the probe where the layers [first, end) leave the states that they are given as they are."""

    def skip(_layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        states = args[0] if args else kwargs["hidden_states"]
        return states if isinstance(output, Tensor) else (states, *output[1:])

    hooks = [layer.register_forward_hook(skip, with_kwargs=True) for layer in blocks_of(model)[first:end]]
    try:
        return _logits(model)
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def _logits(model: Any) -> Tensor:
    """[1, T, V] of the probe."""
    return model(input_ids=torch.arange(PROBE)[None] % _text(model.config).vocab_size, use_cache=False).logits


def _refused(field: str, first: int, end: int, kind: str, why: str, config: PretrainedConfig) -> InputError:
    rules = [name for name, value in _text(config).to_dict().items() if value and RULES.search(name)]
    told = f" (its configuration counts layers by {', '.join(rules)})" if rules else ""
    return InputError(field, f"{kind} without layers [{first}, {end}): {why}{told}", OTHERS)
