"""Hugging Face model folders, read without loading a model: configuration, tokenizer, headers of weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdray.spec.errors import InputError

WINDOWS = (
    *("n_positions", "max_seq_len", "n_ctx", "model_max_length", "max_sequence_length"),
    *("context_length", "seq_length"),
)
COUNTS = {  # by the name that most families give them, with the names of others
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads"),
    "hidden_size": ("n_embd", "d_model"),
    "vocab_size": (),
    "max_position_embeddings": WINDOWS,
}
# The windows that transformers takes where config.json is silent, of families that look positions up in a table, which ends.
TABLES = {"gpt2": 1024, "gpt-sw3": 1024, "gpt_bigcode": 1024, "gpt_neo": 2048, "gptj": 2048, "codegen": 2048}
TABLES |= {"mpt": 2048, "opt": 2048}
AFTER_PAD = ("roberta", "camembert", "xlm-roberta", "mpnet")  # count positions from behind the padding token's number
INDEX = "model.safetensors.index.json"


def read_object(path: Path, field: str, allowed: str) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InputError: there is none, or something else.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(field, f"{path} cannot be read ({error.strerror})", allowed) from None
    except (ValueError, RecursionError) as error:  # neither text nor JSON, or a number or nesting without end
        raise InputError(field, f"{path} is damaged ({error})", allowed) from None
    if not isinstance(tree, dict):
        raise InputError(field, f"{path} is damaged (it is no JSON object)", allowed)
    return tree


def read_config(folder: Path, field: str = "model") -> dict[str, Any]:
    """The configuration of the language model in a folder, that of its text part included; counts by the names in `COUNTS`.

    Raises:
        InputError: it is damaged, or a count in it is no whole number.
    """
    path, allowed = folder / "config.json", "give the config.json of the model"
    config = read_object(path, field, allowed)
    text = config.get("text_config", {})
    if not isinstance(text, dict):
        raise InputError(field, f"{path}: text_config is {json.dumps(text)[:40]}", allowed)
    config = config | text
    for name, others in COUNTS.items():
        said = next((key for key in (name, *others) if config.get(key) is not None), name)
        value = config.get(said, 1)
        unsaid = value is None and name == "max_position_embeddings"
        if not unsaid and (type(value) is not int or value < 1):
            raise InputError(field, f"{path}: {said} is {json.dumps(value)[:40]}", allowed)
        if said in config:
            config[name] = value
    return config


def window_of(folder: Path, field: str = "model") -> int | None:
    """The most tokens that the language model in a folder reads at once; None where it does not say, or knows no end.

    Raises:
        InputError: its configuration is damaged.
    """
    return window_in(read_config(folder, field))


def window_in(config: Mapping[str, Any]) -> int | None:
    """As `window_of`, of a configuration that is read already."""
    config = {**config, **(config.get("text_config") or {})}
    kind = config.get("model_type")
    if kind == "bloom" or (kind == "falcon" and config.get("alibi")):
        return None  # they know distances between tokens alone, of any length
    said = (config.get(name) for name in ("max_position_embeddings", *WINDOWS))
    found = next((value for value in said if value), TABLES.get(str(kind)))
    return found - config.get("pad_token_id", 1) - 1 if found and kind in AFTER_PAD else found


def check_config(folder: Path, field: str) -> None:
    """Raise InputError unless the configuration in a folder can be read and says what kind of model it is of."""
    if not isinstance(read_config(folder, field).get("model_type"), str):
        raise InputError(field, f"{folder / 'config.json'} has no model_type", "give the config.json of the model")


def check_weights(folder: Path, field: str) -> None:
    """Raise InputError unless a folder's safetensors are whole, by their headers, and all that its index names are there."""
    for path in sorted(folder.glob("*.safetensors")):
        if not _is_whole(path):
            raise InputError(field, f"{path} is no whole safetensors file", "fetch it again (a git-lfs pointer: `git lfs pull`)")
    if (folder / INDEX).is_file():
        shards = read_object(folder / INDEX, field, "give the index of the model").get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            raise InputError(field, f"{folder / INDEX} is damaged (no weight_map)", "give the index of the model")
        if missing := [name for name in sorted(set(shards.values())) if not (folder / name).is_file()]:
            raise InputError(field, f"no {missing[0]} in {folder}", f"{INDEX} names it")


def _is_whole(path: Path) -> bool:
    """A header, which is JSON behind its length in eight bytes, and exactly the bytes that it describes."""
    with path.open("rb") as file:
        length, size = int.from_bytes(file.read(8), "little"), path.stat().st_size
        if length + 8 > size:
            return False
        try:
            header = json.loads(file.read(length))
            ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
            return bool(ends) and max(ends) == size - 8 - length
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return False


def read_vocabulary(folder: Path, field: str) -> dict[str, int] | None:
    """All tokens by text, of a tokenizer in the `tokenizers` format; None for one in another format.

    Raises:
        InputError: it is damaged.
    """
    path, allowed = folder / "tokenizer.json", "give the tokenizer.json of the model"
    if not path.is_file():
        return None
    tokenizer = read_object(path, field, allowed)
    try:
        vocabulary = tokenizer["model"]["vocab"]
        if isinstance(vocabulary, list):  # unigram: [token, score] in the order of ids
            vocabulary = {token: i for i, (token, _) in enumerate(vocabulary)}
        return vocabulary | {token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}
    except (KeyError, TypeError, ValueError):
        raise InputError(field, f"{path} is damaged (no vocabulary as tokenizers write it)", allowed) from None
