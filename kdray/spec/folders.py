"""Hugging Face model folders, read without loading a model: configuration and tokenizer, and what their files are
called.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdray.spec.errors import InputError

CONFIG, GENERATION = "config.json", "generation_config.json"
TOKENIZER, TOKENIZER_CONFIG, CHAT_TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
VOCABULARIES = (TOKENIZER, "tokenizer.model", "vocab.json", "vocab.txt")  # without one of them there is no tokenizer
SETTINGS = (TOKENIZER_CONFIG, CHAT_TEMPLATE, "merges.txt", "special_tokens_map.json", "added_tokens.json")
TOKENIZER_FILES = (*VOCABULARIES, *SETTINGS)  # what a prompt's tokens depend on, as far as a folder has it
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
# The windows that transformers takes where config.json is silent, of families that look positions up in a table, which
# ends.
TABLES = {"gpt2": 1024, "gpt-sw3": 1024, "gpt_bigcode": 1024, "gpt_neo": 2048, "gptj": 2048, "codegen": 2048}
TABLES |= {"mpt": 2048, "opt": 2048}
UNBOUNDED = 1 << 30  # tokens
AFTER_PAD = ("roberta", "camembert", "xlm-roberta", "mpnet")  # count positions from behind the padding token's number


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
    """The configuration of the language model in a folder, that of its text part included; counts by the names in
    `COUNTS`.

    Errors name the folder as `called`.

    Raises:
        InputError: it is damaged, or a count in it is no whole number.
    """
    path, allowed = folder / CONFIG, f"give the {CONFIG} of the model"
    shown = f"{CONFIG} in {called}" if called else str(path)
    config = read_object(path, field, allowed, shown)
    text = config.get("text_config", {})
    if not isinstance(text, dict):
        raise InputError(field, f"{shown}: text_config is {json.dumps(text)[:40]}", allowed)
    config = config | text
    for name, others in COUNTS.items():
        said = next((key for key in (name, *others) if config.get(key) is not None), name)
        value = config.get(said, 1)
        unsaid = value is None and name == "max_position_embeddings"
        if not unsaid and (type(value) is not int or value < 1):
            raise InputError(field, f"{shown}: {said} is {json.dumps(value)[:40]}", allowed)
        if said in config:
            config[name] = value
    return config


def is_encoder_decoder(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is of a model whose encoder reads the prompt, and whose decoder writes the response."""
    return config.get("is_encoder_decoder") is True


def decoder_window(folder: Path, field: str = "model") -> int | None:
    """The most response tokens that the decoder of an encoder-decoder in a folder reads, `UNBOUNDED` where it knows no
    end; None of a causal model, whose window is of prompt and response together.

    Raises:
        InputError: its configuration is damaged.
    """
    config = read_config(folder, field)
    return (window_in(config) or UNBOUNDED) if is_encoder_decoder(config) else None


def window_of(folder: Path, field: str = "model") -> int | None:
    """The most tokens that the language model in a folder reads at once; None where it does not say, or knows no end.
    Of an encoder-decoder, each of the two.

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
        raise InputError(field, f"{folder / CONFIG} has no model_type", f"give the {CONFIG} of the model")


def read_vocabulary(folder: Path, field: str) -> dict[str, int] | None:
    """All tokens by text, of a tokenizer in the `tokenizers` format; None for one in another format.

    Raises:
        InputError: it is damaged.
    """
    path, allowed = folder / TOKENIZER, f"give the {TOKENIZER} of the model"
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


def ends_in(folder: Path, field: str = "model") -> set[int]:
    """The tokens by which the model in a folder ends what it writes, as its settings for that say.

    Raises:
        InputError: they are damaged.
    """
    path = folder / GENERATION
    settings = (
        read_object(path, field, f"give the {GENERATION} of the model") if path.is_file() else read_config(folder)
    )
    ends = settings.get("eos_token_id")
    return {id for id in (ends if isinstance(ends, list) else [ends]) if type(id) is int}


def end_of_text(folder: Path, field: str = "model") -> str | None:
    """The token that the tokenizer in a folder ends texts by, as far as its settings say.

    Raises:
        InputError: they are damaged.
    """
    path = folder / TOKENIZER_CONFIG
    settings = read_object(path, field, "give the whole tokenizer") if path.is_file() else {}
    end = settings.get("eos_token")
    return end.get("content") if isinstance(end, dict) else end


def tokenizer_digest(folder: Path) -> str:
    """What a prompt's tokens depend on in a model's folder: its tokenizer, and how many tokens and positions the model
    knows.
    """
    files = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in TOKENIZER_FILES
        if (folder / name).is_file()
    }
    config = read_config(folder)
    sizes = [window_in(config), config.get("vocab_size")]
    sizes += [True] if is_encoder_decoder(config) else []  # it reads a prompt's end too
    return hashlib.sha256(json.dumps([files, sizes]).encode()).hexdigest()
