"""Every weight of a model is the checkpoint's, or the model is refused by the weight's name.

transformers fills what a checkpoint lacks with random numbers, leaves out what it does not know, and tells both in a
table only. On the `meta` device the same code compares all names and shapes, renamed and merged as a model's own rules
say, and reads no weight.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from kdray.spec.errors import InputError
from kdray.spec.folders import is_encoder_decoder, read_config
from kdray.spec.weights import and_more, check_weights
from kdray.store.done import require_intact

LANGUAGE: Any = None  # in the place of a class: that of a language model, as its configuration says which kind it is of
WHOLE = "give the whole checkpoint of a model that its config.json describes"


@contextmanager
def reading(what: object, field: str = "model", allowed: str = "give a whole Hugging Face model") -> Iterator[None]:
    """Say in one line what the libraries find wrong with a model; running out of memory is not the model's fault.

    Raises:
        InputError: it cannot be read.
    """
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        if "out of memory" in text or "can't allocate memory" in text:  # of torch on a CPU: a plain RuntimeError
            raise
        raise InputError(field, f"{what} cannot be read ({text or type(error).__name__})", allowed) from error


def load_whole(
    auto: Any, folder: Path, field: str = "model", shown: str = "", *, body: bool = False, **options: Any
) -> Any:
    """The model that a class of transformers reads from a folder, called `shown` in errors; of its `body` alone, heads
    are left out. `LANGUAGE` is whatever class reads the folder's causal model or encoder-decoder.

    Raises:
        InputError: it cannot be read, is not what was sealed where it lies in a store, or a weight is missing,
            unexpected or of another shape.
    """
    with reading(shown or folder, field):
        shapes = options.get("device_map") == "meta"  # all that is read of weights
        require_intact(folder, lambda name: not (shapes and name.endswith(".safetensors")))
        check_weights(folder, field, shown, language=auto is LANGUAGE)
        if auto is LANGUAGE:
            both = is_encoder_decoder(read_config(folder, field, shown))
            auto = AutoModelForSeq2SeqLM if both else AutoModelForCausalLM
        with report_aside():
            model, info = auto.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # not ignored: told by name below
                **options,
            )
    refuse_incomplete(_of_body(info, model) if body else info, field, shown or str(folder))
    return model


def refuse_incomplete(info: Mapping[str, Any], field: str, shown: str) -> None:
    """Raise InputError where loading, by transformers' account of it, found a weight missing, unexpected or of another
    shape.
    """
    if missing := sorted(info["missing_keys"]):
        raise InputError(
            field, f"{shown} lacks the weight {missing[0]}{and_more(missing)}{_beside(info['unexpected_keys'])}", WHOLE
        )
    if unexpected := sorted(info["unexpected_keys"]):
        raise InputError(
            field, f"{shown} has a weight {unexpected[0]}{and_more(unexpected)} that the model has no place for", WHOLE
        )
    if mismatched := sorted(info["mismatched_keys"]):
        name, found, wanted = mismatched[0]
        raise InputError(
            field, f"{shown} has {name} of shape {[*found]}{and_more(mismatched)}", f"the model's is {[*wanted]}"
        )
    if errors := info["error_msgs"]:
        raise InputError(field, f"{shown} cannot be read ({errors[0]})", WHOLE)


@contextmanager
def report_aside() -> Iterator[None]:
    """Without the table of transformers, a warning, about what is refused in one line anyway."""
    log = logging.getLogger(
        "transformers.modeling_utils"
    )  # by a filter: with a higher level it warns of tensor parallelism
    log.addFilter(_is_no_report)
    try:
        yield
    finally:
        log.removeFilter(_is_no_report)


def _is_no_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()


def _of_body(info: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """Of an encoder without a head: the checkpoint's head has no place, and the pooler, which is none of it, no
    weight.
    """
    own = {name.partition(".")[0] for name in model.state_dict()} | {model.base_model_prefix}
    return {
        **info,
        "missing_keys": {name for name in info["missing_keys"] if not name.startswith("pooler.")},
        "unexpected_keys": {name for name in info["unexpected_keys"] if name.partition(".")[0] in own},
    }


def _beside(unexpected: Any) -> str:
    return f", and has {min(unexpected)}, which the model does not know" if unexpected else ""
