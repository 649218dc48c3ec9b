"""How a model is trained: its length, the optimiser and what is minimised."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from kdray.spec import declare
from kdray.spec.errors import InputError
from kdray.spec.marks import Enters
from kdray.spec.sections.base import (
    ENTERS,
    RUNS,
    SELECTS,
    Dtype,
    Fraction,
    NonNegative,
    Section,
    Seed,
    Share,
    Use,
    all_different,
)

ADAPTED = {"method": ("lora", "qlora")}  # where there are adapters
LENGTH = Enters(instead={"unit": "unit", "length": "total"})  # 3 epochs, and no other unit


class Length(Section):
    """How long to train: in epochs (a fraction is allowed) or in optimiser steps."""

    epochs: Annotated[PositiveFloat | None, LENGTH] = Field(None, description="the length; an epoch may be a fraction")
    steps: Annotated[PositiveInt | None, LENGTH] = Field(
        None, description="the length in optimiser steps, instead of epochs"
    )

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise InputError(
                "", "neither epochs nor steps" if self.epochs is None else "both epochs and steps", "give one of them"
            )
        return self

    @property
    def unit(self) -> Literal["epochs", "steps"]:
        return "epochs" if self.epochs is not None else "steps"

    @property
    def total(self) -> float:
        return float(self.epochs if self.epochs is not None else self.steps or 0)


class Optimiser(Length):
    """AdamW and its schedule; weight decay is not applied to norms and biases."""

    schedule: Annotated[Use, Enters(declare.Schedule)] = Field(
        Use(name="cosine"), description="of the learning rate: `cosine` (with `floor`) or `constant`, after the warm-up"
    )
    warmup: Annotated[Fraction, ENTERS] = Field(
        0.0, description="share of the steps over which lr rises linearly from 0"
    )
    weight_decay: Annotated[NonNegative, ENTERS] = Field(0.01, description="AdamW's, not on norms and biases")
    clip: Annotated[PositiveFloat | None, ENTERS] = Field(
        1.0, description="the largest gradient norm; null for no clipping"
    )
    dtype: Annotated[Dtype, ENTERS] = Field(
        "float32", description="of forward and backward; bfloat16 is autocast with trained weights that stay float32"
    )
    method: Annotated[Literal["full", "lora", "qlora"], ENTERS] = Field(
        "full",
        description=(
            "all weights; `lora`, adapters on the linear layers; `qlora`, the same on weights in NF4 (`pip install"
            " 'kdray[qlora]'`). What is exported is a plain model, adapters merged into the weights in float32; or see"
            " `export`"
        ),
    )
    rank: Annotated[PositiveInt, Enters(where=ADAPTED)] = Field(16, description="of the adapters")
    scale: Annotated[PositiveFloat, Enters(where=ADAPTED, unless_default=True)] = Field(
        2.0, description="of the adapters: peft's `lora_alpha` divided by the rank"
    )
    dropout: Annotated[Share, Enters(where=ADAPTED, unless_default=True)] = Field(
        0.0, description="before the adapters, while they train"
    )
    compile: Annotated[bool, ENTERS] = Field(False, description="torch.compile, on GPUs only")
    packing: Annotated[bool, ENTERS] = Field(
        True,
        description=(
            "the sequences of a micro-batch in one row, without padding and without seeing each other; false pads them,"
            " as is done to a model that cannot keep them apart, and to an encoder-decoder"
        ),
    )


class ExportSection(Section):
    """How a checkpoint is written that is exported to be scored."""

    dtype: Annotated[Dtype, Enters(unless_default=True)] = Field(
        default="float32",
        description=(
            "type of the exported weights, whatever `train.dtype`; bfloat16 takes half the disk, and what is scored is"
            " rounded"
        ),
    )
    adapters: Annotated[bool, Enters(unless_default=True)] = Field(
        default=False,
        description=(
            "with `lora` and `qlora`: the adapters alone, as peft writes them, instead of a plain model; to be scored"
            " they are merged into the student that they name"
        ),
    )


class Train(Optimiser):
    """How every point trains."""

    keep: Annotated[list[PositiveFloat], AfterValidator(all_different), Enters(instead={"keep": "kept"})] = Field(
        [],
        description=(
            "checkpoints to export and score, in the unit of the length; the end always is one. "
            "Part of a point: another list trains it anew"
        ),
    )
    export: ExportSection = Field(
        ExportSection(), description="how checkpoints are exported; as with `keep`, another way trains a point anew"
    )

    @model_validator(mode="after")
    def _keep_in_range(self) -> Self:
        for k in self.keep:
            if k > self.total:
                raise InputError("keep", f"{k:g}", f"must lie before or at the end, {self.total:g} {self.unit}")
            if self.unit == "steps" and k != int(k):
                raise InputError("keep", f"{k:g}", "must be a whole number of steps")
        return self

    @model_validator(mode="after")
    def _adapters_there(self) -> Self:
        if self.export.adapters and self.method not in ADAPTED["method"]:
            raise InputError("export.adapters", f"true with method {self.method}", "use method lora or qlora")
        return self

    @property
    def kept(self) -> list[float]:
        """The exported checkpoints in order; the last one always is the end of training."""
        return sorted({*self.keep, self.total})


class SearchSection(Section):
    """Early stopping: of the points of an arm, those that fall behind in held-out loss are not trained to their end."""

    name: Annotated[Literal["asha"], RUNS] = Field(
        description="asynchronous successive halving, Ray Tune's; `asha` alone takes the defaults below"
    )
    grace: Annotated[PositiveFloat | None, RUNS] = Field(
        default=None,
        description="no point is stopped before, in the unit of the length; by default the first of `train.keep`",
    )
    reduction: Annotated[int, Field(ge=2), RUNS] = Field(
        default=3, description="at every rung one of so many goes on; rungs lie at grace, grace x reduction, and so on"
    )

    def rungs(self, train: Train) -> list[float]:
        """Where points are compared: the first kept checkpoint from each of these on, but for the end of training."""
        before, found = train.kept[:-1], list[float]()
        least = self.grace or train.kept[0]
        while later := [at for at in before if at >= least * (1 - 1e-9)]:  # 0.1 x 3 is a little more than 0.3
            if later[0] not in found:
                found.append(later[0])
            least *= self.reduction
        return found


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


BY_NAME = BeforeValidator(_named, json_schema_input_type=Literal["asha"] | SearchSection | None)  # as components are


class Tune(Optimiser):
    """How the teacher is fine-tuned on the data before it labels them."""

    lr: Annotated[PositiveFloat, ENTERS] = Field(description="the largest learning rate")
    batch: Annotated[PositiveInt, ENTERS] = Field(8, description="sequences per optimiser step")
    seed: Annotated[Seed, ENTERS] = Field(0, description="of the order of examples, and of the adapters")


class AlignSection(Section):
    """How a trained point learns to cite: from the best of its own citations, by SimPO.

    What is not said here is as in `train`.
    """

    lr: Annotated[PositiveFloat, ENTERS] = Field(description="the largest learning rate")
    steps: Annotated[PositiveInt, ENTERS] = Field(description="optimiser steps")
    batch: Annotated[PositiveInt, ENTERS] = Field(default=8, description="pairs of an optimiser step")
    beta: Annotated[PositiveFloat, ENTERS] = Field(
        default=2.5, description="scale of the difference between the chosen response and the rejected one"
    )
    gamma: Annotated[NonNegative, ENTERS] = Field(default=1.4, description="margin that this difference is to have")
    answers: Annotated[PositiveInt | None, SELECTS] = Field(
        default=None, description="so many training rows are answered and cited; by default all"
    )
    max_new_tokens: Annotated[PositiveInt, SELECTS] = Field(default=128, description="where these answers are cut")
    candidates: Annotated[PositiveInt, SELECTS] = Field(
        default=10, description="citations of a statement, of which the best is chosen"
    )


class SamplingSection(Section):
    """How the student samples responses as it trains."""

    temperature: Annotated[PositiveFloat, ENTERS] = Field(
        default=1.0, description="at which tokens are drawn; 1 is the student's own distribution"
    )
    top_k: Annotated[PositiveInt | None, ENTERS] = Field(
        default=None, description="draw from so many likeliest tokens alone; null for all"
    )
    max_new_tokens: Annotated[PositiveInt | None, ENTERS] = Field(
        default=None,
        description="where a sampled response is cut; by default `data.max_length` less `data.max_prompt`",
    )


class ObjectiveSection(Section):
    """What is minimised: hard + alpha x soft, the soft term at a temperature and times its square."""

    loss: Annotated[Use, Enters(declare.Loss)] = Field(
        default=Use(name="cross_entropy"),
        description=(
            "the soft term, between the teacher's distribution and the student's: `cross_entropy` (the paper's),"
            " `forward_kl`, `reverse_kl`, `jsd` (with `beta`, 0.5), `total_variation`, `adaptive`, cross-entropy"
            " that counts more where the teacher is unsure (in full from `nats` of entropy on, 1), or, with"
            " `soft_labels.align`, `uld`"
        ),
    )
    temperature: Annotated[PositiveFloat, ENTERS] = Field(
        default=1.0, description="divides both models' logits in the soft term, which is multiplied by its square"
    )
    weighting: Annotated[Literal["sum", "ratio", "convex"], ENTERS] = Field(
        default="sum",
        description=(
            "`sum`: hard + alpha soft; `ratio`: that divided by 1 + alpha; `convex`: (1 - alpha) hard + alpha soft. "
            "They differ where the gradient is clipped"
        ),
    )
    on_policy: Annotated[Fraction, SELECTS] = Field(
        default=1.0,
        description=(
            "with labels `student`: the share of steps on responses that it samples (GKD's lambda); the others take the"
            " data's own (see docs/grid.md#on-policy)"
        ),
    )
    sampling: SamplingSection = Field(default=SamplingSection(), description="how these responses are sampled")
