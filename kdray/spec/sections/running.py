"""What changes no artifact: how results are told, and where and how a grid runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from kdray.spec import declare
from kdray.spec.errors import InputError
from kdray.spec.marks import Runs
from kdray.spec.paths import local_path, tracking_address, variable_name
from kdray.spec.sections.base import RUNS, SHOWN, NonNegative, Section, Use
from kdray.spec.sections.points import SomePoints


class Report(Section):
    """How the tables compare points."""

    primary: Annotated[str | None, SHOWN] = Field(
        default=None,
        description=(
            "the metric of the verdict and of MLflow's charts, as task/metric: `xsum/rougeL`, or with a lens `xsum/fr`;"
            " left out, the first task's first metric under the first decoding; the interval it gives counts items and"
            " runs as samples and holds for all rows at once (docs/statistics.md)"
        ),
    )
    checkpoint: Annotated[Literal["last", "best_heldout", "best_answers"], SHOWN] = Field(
        default="last",
        description=(
            "`best_heldout`: of all of a point, the one with the least held-out cross-entropy; `best_answers`: the one"
            " whose greedy answers to the held-out rows (`heldout_answers`) have the highest ROUGE-L, so that this"
            " column itself is optimistic"
        ),
    )
    margin: Annotated[dict[str, NonNegative], SHOWN] = Field(
        default={},
        description=(
            "the loss that still counts as no harm, and that the report tests the best row for: by multiple-choice"
            " task, of accuracy (0 to 1), or by task/metric in the unit of the tables"
        ),
    )
    cases: Annotated[NonNegativeInt, SHOWN] = Field(
        default=3,
        description=(
            "how many examples of each kind the report shows with article and answers: where the best row beats SFT"
            " most, where it falls behind most, and at random; 0 leaves all texts of the data out of the report"
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _retired(cls, value: Any) -> Any:
        if isinstance(value, dict) and "baseline" in value:
            raise InputError("baseline", "is gone: every row is compared with SFT", "leave it out")
        return value


class Runtime(Section):
    """Where and how it runs. Nothing here changes an id or, within float error, a number."""

    store: Annotated[str, AfterValidator(lambda text: local_path(text, seen_by_all=True)), RUNS] = Field(
        description=(
            "the folder where all artifacts go; every node must see it. An address such as `s3://bucket/x` is refused: "
            "mount it, and write the path"
        )
    )
    workers: Annotated[PositiveInt | Literal["auto"], RUNS] = Field(
        "auto", description="GPUs, or cores, for one point; auto: 1"
    )
    beside: Annotated[NonNegativeInt | Literal["auto"], RUNS] = Field(
        "auto",
        description=(
            "GPUs that answer and score while points train (without GPUs, so many processes, which share the cores with"
            " points); in the end all do. 0: nothing is scored before the last points train. `auto`: by what both cost,"
            " in places of whole points"
        ),
    )
    points_per_gpu: Annotated[PositiveInt | Literal["auto"], RUNS] = Field(
        "auto",
        description=(
            "points of one worker that train side by side on one GPU, of which small models leave most idle. A number"
            " is taken as written; `auto`: as many as fit in the memory of the smallest GPU by the estimate of `kdray"
            " plan`, 4 at most, and 1 where that is not known or there is a GPU for each point"
        ),
    )
    priority: list[SomePoints] = Field(
        [],
        description=(
            "points that train first, by what they have in common: `[{alpha: 1}, {alpha: 0, seed: 0}]`, first all with"
            " alpha 1, then those of SFT with seed 0, then all others; of equal rank, the longest first"
        ),
    )
    device: Annotated[Literal["auto", "cpu", "gpu"], RUNS] = Field(
        "auto",
        description=(
            "`auto`: GPUs if there are any; `gpu` refuses to run without one, `cpu` leaves those there are alone"
        ),
    )
    accelerator: Annotated[Annotated[str, Field(min_length=1)] | None, RUNS] = Field(
        None, description="the type of GPU to use, as Ray names it: `H100`; GPUs of other types are left alone"
    )
    engine: Annotated[Use, Runs(declare.Engine)] = Field(
        default=Use(name="ddp"),
        description=(
            "how the workers of a point share a model: `ddp`, every one holds all of it; `{name: fsdp, sum_once:"
            " false}`, shards of weights, gradients and optimiser; `{name: deepspeed, stage: 1, 2 or 3, offload:"
            " false}`, ZeRO. The same result but for rounding"
        ),
    )
    gradient_checkpointing: Annotated[bool, RUNS] = Field(
        False, description="activations are computed again in the backward pass: less memory, a third more time"
    )
    micro_batch: Annotated[PositiveInt | None, RUNS] = Field(
        None, description="sequences in one forward pass of a worker; by default all"
    )
    checkpoint_minutes: Annotated[PositiveFloat, RUNS] = Field(
        10, description="minutes between the checkpoints that an interrupted point resumes from"
    )
    checkpoint_every: Annotated[PositiveInt | None, RUNS] = Field(
        None, description="steps after which one is written at the latest"
    )
    drop_exports: Annotated[Literal["scored"] | None, RUNS] = Field(
        None,
        description=(
            "`scored`: the weights of an exported checkpoint are removed once all its scores are there, but for the one"
            " that `report.checkpoint` chooses; scores, answers and tokenizer stay (see docs/store.md)"
        ),
    )
    mlflow: Annotated[Annotated[str, AfterValidator(tracking_address)] | None, RUNS] = Field(
        None,
        description=(
            "tracking URI: `http://host:port`, `sqlite:////path/of/mlflow.db`, another database's; "
            "null keeps a sqlite file in the store"
        ),
    )

    notify: Annotated[Annotated[str, AfterValidator(variable_name)] | None, RUNS] = Field(
        None,
        description=(
            "the name of an environment variable that holds the URL of a webhook: it gets a JSON POST `{grid, state,"
            " text}` at the first failure and at the end (docs/operating.md); the URL itself is a secret, and refused"
        ),
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.points_per_gpu not in ("auto", 1) and self.workers not in ("auto", 1):
            found = f"{self.points_per_gpu} with {self.workers} workers"
            raise InputError("points_per_gpu", found, "1, or workers: 1; workers of one point cannot share a GPU")
        return self

    @model_validator(mode="after")
    def _accelerated(self) -> Self:
        if self.accelerator and self.device == "cpu":
            raise InputError("accelerator", f"{self.accelerator} with device cpu", "use device: gpu, or leave it out")
        return self
