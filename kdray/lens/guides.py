"""What may guide decoding: a lens, a classifier on hidden states, or a judge of texts. Each scores candidate chunks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdray.artifacts.lens import GUIDE
from kdray.lens.classifier import Lens
from kdray.lens.guided import Draft, Observer
from kdray.lens.ratios import watch
from kdray.models.hooks import attention_of, blocks_of, listen
from kdray.spec.errors import InputError
from kdray.store import io

Part = Literal["residual", "attention"]
Judge = Callable[[str, list[str]], Sequence[float]]  # a document and texts about it -> a score for each


class Nothing:
    """An observer that needs nothing of the forward passes."""

    def take(self) -> None:
        return None


@dataclass(frozen=True)
class LensGuide:
    """P(factual) of a chunk by the mean lookback ratios of its tokens, the ending one included."""

    lens: Lens

    @contextmanager
    def observe(self, model: PreTrainedModel, prompt: Sequence[int], n_context: int) -> Iterator[Observer]:
        """`take` gives [B, 1, L, H] lookback ratios.

        Raises:
            InputError: the lens is for another number of layers or heads.
        """
        config = model.get_decoder().config
        self.lens.require_shape(config.num_hidden_layers, config.num_attention_heads)
        with watch(model, [n_context], len(prompt)) as seen:
            yield seen

    def score(self, model: PreTrainedModel, draft: Draft) -> Tensor:
        assert draft.seen is not None
        return self.lens.probability(draft.mean(draft.seen))


@dataclass(frozen=True)
class HiddenGuide:
    """P(factual) of a chunk by a linear classifier on the mean hidden state of the queries that predict its tokens.

    `layer` counts from 1; `residual` is that layer's output, `attention` its attention block's before it is added.
    `record` says where it is from, and how well it tells factual windows from hallucinated ones (`kdray.lens.hidden`).
    """

    weights: Tensor  # [d]
    intercept: float
    layer: int
    part: Part = "residual"
    record: Mapping[str, Any] = field(default_factory=dict)

    @contextmanager
    def observe(self, model: PreTrainedModel, prompt: Sequence[int], n_context: int) -> Iterator[Observer]:
        """`take` gives [B, 1, d] hidden states.

        Raises:
            InputError: the model has no such layer, or another width.
        """
        blocks = blocks_of(model)
        width = model.get_decoder().config.hidden_size
        if not 1 <= self.layer <= len(blocks):
            raise InputError("guide", f"a classifier on layer {self.layer}", f"the model has layers 1 to {len(blocks)}")
        if len(self.weights) != width:
            raise InputError(
                "guide", f"a classifier on hidden states of width {len(self.weights)}", f"the model's are {width} wide"
            )
        block = blocks[self.layer - 1]
        module = block if self.part == "residual" else attention_of(block)
        with listen([module], lambda hidden: hidden[:, -1:].float()) as kept:
            yield _Last(kept)

    def score(self, model: PreTrainedModel, draft: Draft) -> Tensor:
        assert draft.seen is not None
        return torch.sigmoid(draft.mean(draft.seen) @ self.weights.to(draft.seen) + self.intercept)

    def save(self, path: Path) -> None:
        """As one safetensors file; the same guide is always the same bytes, since they enter the id of what it
        guides.
        """
        tensors = {
            "weights": self.weights.contiguous(),
            "intercept": torch.tensor([self.intercept], dtype=torch.float64),
        }
        said = {"layer": self.layer, "part": self.part, "record": dict(self.record)}
        io.put(path, save(tensors, metadata={GUIDE: json.dumps(said)}))  # several entries would be in any order

    @classmethod
    def load(cls, path: Path) -> HiddenGuide:
        """From a file that `save` wrote.

        Raises:
            InputError: it is none.
        """
        try:
            with safe_open(path, framework="pt") as file:
                said: Any = json.loads((file.metadata() or {})[GUIDE])
                if {*file.keys()} != {"weights", "intercept"} or said["part"] not in get_args(Part):
                    raise ValueError("weights and an intercept alone, of a part that there is")
                weights, intercept = file.get_tensor("weights"), file.get_tensor("intercept").item()
            return cls(weights, intercept, int(said["layer"]), said["part"], said["record"])
        except (OSError, SafetensorError, TypeError, KeyError, ValueError):
            raise InputError(
                "guide", f"{path} is no classifier on hidden states", "a file that `kdray lens guide` wrote"
            ) from None


@dataclass(frozen=True)
class TextGuide:
    """A judge's score of the answer so far with a chunk at its end, such as a model of factual consistency."""

    judge: Judge
    tokenizer: PreTrainedTokenizerBase
    document: str

    @contextmanager
    def observe(self, model: PreTrainedModel, prompt: Sequence[int], n_context: int) -> Iterator[Observer]:
        yield Nothing()

    def score(self, model: PreTrainedModel, draft: Draft) -> Tensor:
        texts = self.tokenizer.batch_decode(
            [[*draft.answer, *chunk] for chunk in draft.chunks], skip_special_tokens=True
        )
        return torch.tensor(list(self.judge(self.document, [text.strip() for text in texts])))


class SupportGuide:
    """How much likelier a chunk is with the context before it than without, nats a token: a stand-in for a judge.

    The model itself says both; what is left without the context is the prompt's tail and the answer so far.
    """

    @contextmanager
    def observe(self, model: PreTrainedModel, prompt: Sequence[int], n_context: int) -> Iterator[Observer]:
        self.n_context = n_context
        yield Nothing()

    def score(self, model: PreTrainedModel, draft: Draft) -> Tensor:
        before = [*draft.prompt[self.n_context :], *draft.answer]
        longest = max(map(len, draft.chunks))
        rows = [
            before + chunk + [0] * (longest - len(chunk)) for chunk in draft.chunks
        ]  # padded on the right: nothing looks there
        ids = torch.tensor(rows, device=model.device)
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=longest + 1).logits[:, :-1].float()
        without = logits.log_softmax(-1).gather(2, ids[:, len(before) :, None])[..., 0]
        return draft.mean(draft.log_probs[:, :longest] - without)


def open_guide(path: Path) -> LensGuide | HiddenGuide:
    """The lens in a folder, or the classifier on hidden states in a file.

    Raises:
        InputError: it is neither.
    """
    return HiddenGuide.load(path) if path.is_file() else LensGuide(Lens.load(path))


@dataclass(frozen=True)
class _Last:
    """The hidden states that a hook kept of the last pass."""

    kept: list[Tensor]

    def take(self) -> Tensor:
        return self.kept[0]
