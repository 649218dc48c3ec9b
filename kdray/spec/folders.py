"""Hugging Face model folders, read without loading a model: configuration and tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kdray.spec.errors import InputError

COUNTS = ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size", "max_position_embeddings")


def read_object(path: Path, field: str, allowed: str, shown: str = "") -> dict[str, Any]:
    """The JSON object in a file, called `shown` in errors.

    Raises:
        InputError: there is none, or something else.
    """
    shown = shown or str(path)
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(field, f"{shown} cannot be read ({error.strerror})", allowed) from None
    except (ValueError, RecursionError) as error:  # neither text nor JSON, or a number or nesting without end
        raise InputError(field, f"{shown} is damaged ({error})", allowed) from None
    if not isinstance(tree, dict):
        raise InputError(field, f"{shown} is damaged (it is no JSON object)", allowed)
    return tree


def read_config(folder: Path, field: str = "model", called: str = "") -> dict[str, Any]:
    """The configuration of the language model in a folder, which errors name as `called`, that of its text part included.

    Raises:
        InputError: it is damaged, or a count in it is no whole number.
    """
    path, allowed = folder / "config.json", "give the config.json of the model"
    shown = f"config.json in {called}" if called else str(path)
    config = read_object(path, field, allowed, shown)
    text = config.get("text_config", {})
    if not isinstance(text, dict):
        raise InputError(field, f"{shown}: text_config is {json.dumps(text)[:40]}", allowed)
    config = config | text
    for name in COUNTS:
        value = config.get(name, 1)
        unsaid = value is None and name == "max_position_embeddings"
        if not unsaid and (type(value) is not int or value < 1):
            raise InputError(field, f"{shown}: {name} is {json.dumps(value)[:40]}", allowed)
    return config


def check_config(folder: Path, field: str) -> None:
    """Raise InputError unless the configuration in a folder can be read and says what kind of model it is of."""
    if not isinstance(read_config(folder, field).get("model_type"), str):
        raise InputError(field, f"{folder / 'config.json'} has no model_type", "give the config.json of the model")


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
