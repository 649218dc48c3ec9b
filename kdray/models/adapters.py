"""LoRA and QLoRA by peft: adapters on a model to train it, and merged into its plain weights to keep it; or kept
alone, as peft writes them, and merged when they are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

from kdray.models.load import as_type, load_folder, load_placed, load_tokenizer, own_device, spread_out
from kdray.models.weights import LANGUAGE, load_whole, reading
from kdray.spec.errors import InputError
from kdray.spec.weights import ADAPTERS, and_more
from kdray.store.done import require_intact

CONFIG, WEIGHTS, _ = ADAPTERS  # as peft calls them; a pickle is not read


def with_lora(model: PreTrainedModel, rank: int, seed: int = 0, *, scale: float = 2.0, dropout: float = 0.0) -> Any:
    """`model` with adapters on all linear layers but its output head, times `scale` (peft's lora_alpha / r); only they
    are trained.

    The output head gets none: the losses read its weight, and would pass an adapter by. The adapters begin alike
    wherever the seed is the same: on every rank of a point too, which only DDP would see to by itself.
    """
    from peft import (
        LoraConfig,
        get_peft_model,
    )  # loads bitsandbytes where it is installed: a second that full training does without

    alpha: Any = scale * rank  # peft takes a fraction too
    task = "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules="all-linear", task_type=task)
    devices = (
        [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    )  # not all: that would take memory on each
    with torch.random.fork_rng(devices):  # an export in the middle of training must not disturb its dropout
        torch.manual_seed(seed)
        return get_peft_model(model, config)


class Frozen(nn.Linear):
    """A linear layer that is not trained, kept in a narrower type.

    Under autocast to that type its products are, bit for bit, those of the layer in float32, which autocast would round
    anew in every pass. Without autocast it computes in the type of its input.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight = nn.Parameter(linear.weight.detach().to(dtype), requires_grad=False)
        if linear.bias is not None:
            self.bias = nn.Parameter(linear.bias.detach().to(dtype), requires_grad=False)

    def forward(self, input: Tensor) -> Tensor:
        if torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return nn.functional.linear(input, self.weight.to(input.dtype), bias)


def narrow(model: Any, dtype: torch.dtype) -> None:
    """Keep the linear layers under a model's adapters as `dtype`, in which autocast takes their products anyway.

    Embeddings, norms and the output head stay as they are, and the adapters float32: no number changes.
    """
    for module in list(model.modules()):
        if type(base := getattr(module, "base_layer", None)) is nn.Linear:
            module.base_layer = Frozen(base, dtype)


def load_quantised(
    folder: Path, device: torch.device | str | None, dtype: torch.dtype, bits: str = "4bit", field: str = "method"
) -> PreTrainedModel:
    """The model in `folder` with its decoder's linear layers in NF4 (QLoRA, arXiv 2305.14314) or, with `8bit`, by
    LLM.int8() (arXiv 2208.07339), frozen; what is not quantised is of `dtype`. Without a `device` it is spread over all
    GPUs.

    Raises:
        InputError: bitsandbytes is not installed; `field` asked for it.
    """
    try:
        from bitsandbytes.nn.modules import Linear4bit  # pyright: ignore[reportMissingImports] - an extra
    except ImportError:
        raise InputError(field, f"{bits} weights without bitsandbytes", "pip install 'kdray[qlora]'") from None
    quantise = quantisation(bits, dtype)
    place = "balanced" if device is None else {"": device}
    model: Any = load_whole(LANGUAGE, folder, quantization_config=quantise, dtype=dtype, device_map=place)
    for module in model.modules():
        if isinstance(module, Linear4bit):
            # On processors with AVX512-BF16 one evaluation would repack the weights, and later gradients be wrong.
            module.support_avx512bf16_for_cpu = False
    return model.requires_grad_(False)


def quantisation(bits: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    """What transformers is told: `4bit` is NF4 with doubly quantised scales, whose products are taken in `dtype`."""
    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def load_teacher(
    folder: Path, dtype: torch.dtype, quantise: str | None, field: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """As `load_placed`, a teacher whose layers may be quantised; `field` asked for that."""
    if quantise is None:
        return load_placed(folder, dtype)
    device = own_device() if torch.cuda.device_count() <= 1 else None
    return load_quantised(folder, device, dtype, quantise, field).eval(), load_tokenizer(folder)


def merged(
    folder: Path, rank: int, weights: Mapping[str, Tensor], scale: float = 2.0, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """The model in `folder` as `dtype` with the adapters among `weights` merged in.

    Every sum is taken in float32 and rounded, layer by layer: memory holds the model once, in that type.
    """
    model = with_lora(load_folder(folder, dtype)[0], rank, scale=scale)
    adapters = {name: tensor for name, tensor in weights.items() if "lora_" in name}
    missing, unexpected = model.load_state_dict(adapters, strict=False)
    assert not unexpected, unexpected
    assert not any("lora_" in name for name in missing), missing
    return model.merge_and_unload()


def save_adapters(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    weights: Mapping[str, Tensor],
    base: Path,
    dtype: torch.dtype,
) -> None:
    """Write the adapters among `weights`, those of the peft model `model`, as peft reads them, and the tokenizer.

    The model in the folder `base`, which they belong to, is named in their configuration, by its path.
    """
    adapters = as_type({name: tensor for name, tensor in weights.items() if "lora_" in name}, dtype)
    model.peft_config[model.active_adapter].base_model_name_or_path = str(base)
    model.save_pretrained(folder, state_dict=adapters, save_embedding_layers=False)  # otherwise it may ask the hub
    tokenizer.save_pretrained(folder)


def base_of(folder: Path) -> Path:
    """The folder of the model that the adapters in an artifact's folder belong to; a plain model's own.

    Raises:
        InputError: it is not there, or not named.
    """
    config = folder / CONFIG
    if not config.is_file():
        return folder
    with reading(config):
        named = Path(json.loads(config.read_text())["base_model_name_or_path"])
    if named.is_dir():
        return named
    moved = folder.parents[2].joinpath(*named.parts[-3:])  # with its store: root/kind/artifact/attempt
    if moved.is_dir():
        return moved
    raise InputError("model", f"the adapters in {folder} belong to {named}, which is not there", "put it back")


def load_exported(folder: Path, dtype: torch.dtype) -> tuple[Any, PreTrainedTokenizerBase]:
    """An exported student where this process scores it; adapters merged into their model.

    They are merged in float32 and the sum is rounded, so that numbers are those of the plain model that `merged` gives.

    Raises:
        InputError: it cannot be read, or an adapter is missing, unexpected or of another shape.
    """
    if not (folder / CONFIG).is_file():
        return load_placed(folder, dtype)
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    plain, _ = load_folder(base_of(folder))
    with reading(folder), torch.random.fork_rng([]):  # adapters begin at random
        require_intact(folder)
        adapted = get_peft_model(plain, LoraConfig.from_pretrained(str(folder)))
        found = set_peft_model_state_dict(adapted, load_file(folder / WEIGHTS))
    missing = [name for name in found.missing_keys if "lora_" in name]
    for what, names in (("lacks", missing), ("has too much:", found.unexpected_keys)):
        if names:
            raise InputError("model", f"{folder} {what} {names[0]}{and_more(names)}", "export it again")
    return spread_out(adapted.merge_and_unload().to(dtype)).eval(), load_tokenizer(folder)
