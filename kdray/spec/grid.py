"""The schema of a grid file. Every field says what it means; what changes results is kept apart from `runtime`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from kdray.spec.errors import InputError
from kdray.spec.paths import local_path, tracking_address
from kdray.spec.refs import parse_reference

Dtype = Literal["float32", "bfloat16"]
Labels = Literal["gold", "teacher", "both"]  # the original responses, the teacher's answers, or both together
Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=60)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def _no_negative_zero(value: float) -> float:
    return value + 0.0  # -0.0 is equal to 0.0, but would be written, and so hashed, differently


Fraction = Annotated[float, Field(ge=0, le=1), AfterValidator(_no_negative_zero)]
NonNegative = Annotated[float, Field(ge=0), AfterValidator(_no_negative_zero)]


def _all_different(values: list[Any]) -> list[Any]:
    if twice := [value for i, value in enumerate(values) if value in values[:i]]:
        raise InputError("", f"{twice[0]:g} twice" if isinstance(twice[0], float) else f"{twice[0]} twice", "give each once")
    return values


def _well_formed(text: str) -> str:
    parse_reference(text, "")
    return text


Ref = Annotated[str, AfterValidator(_well_formed)]

# By the authors of Lookback Lens, for Llama-2-7B-chat: windows of 8 tokens of its summaries of CNN/DailyMail.
PUBLISHED_LENS = (
    "https://raw.githubusercontent.com/voidism/Lookback-Lens/aebfbf65f68a301cba0605dd79c6e3f40b6fb7c7/classifiers/"
    "classifier_anno-cnndm-7b_sliding_window_8.pkl#sha256=dafc4fda81b765bed4f7030b992a195b6d2bf2dd20ce368756d63a01fd73232c"
)


def _named_lens(text: str) -> str:
    if ":" not in text and text != "published":
        raise InputError("", f"'{text}'", "write file:FOLDER, or published")
    return PUBLISHED_LENS if text == "published" else _well_formed(text)


class Section(BaseModel):
    """A mapping of the grid file: unknown fields are refused, values are read strictly and never change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Use(Section):
    """A component by name, `rouge`, or with parameters, `{name: rouge, stem: true}`."""

    name: str
    params: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _unfold(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            return {"name": value["name"], "params": {k: v for k, v in value.items() if k != "name"}}
        raise ValueError("write a name, or a mapping with a name and its parameters")


class Length(Section):
    """How long to train: in epochs (a fraction is allowed) or in optimiser steps."""

    epochs: PositiveFloat | None = None
    steps: PositiveInt | None = None

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise InputError("", "neither epochs nor steps" if self.epochs is None else "both epochs and steps", "give one of them")
        return self

    @property
    def unit(self) -> Literal["epochs", "steps"]:
        return "epochs" if self.epochs is not None else "steps"

    @property
    def total(self) -> float:
        return float(self.epochs if self.epochs is not None else self.steps or 0)


class Optimiser(Length):
    """AdamW and its schedule; weight decay is not applied to norms and biases."""

    schedule: Use = Use(name="cosine")
    warmup: Fraction = Field(0.0, description="share of the steps over which lr rises linearly from 0")
    weight_decay: NonNegative = 0.01
    clip: PositiveFloat | None = Field(1.0, description="largest gradient norm; null for no clipping")
    dtype: Dtype = Field("float32", description="of the forward and backward pass; master weights stay float32")
    method: Literal["full", "lora", "qlora"] = Field("full", description="all weights, or adapters on the linear layers")
    rank: PositiveInt = Field(16, description="of the adapters; scaled by 2")
    compile: bool = Field(False, description="torch.compile; on GPUs only")
    packing: bool = Field(True, description="the sequences of a micro-batch in one row without padding, none seeing another")


class Train(Optimiser):
    """How every point trains."""

    keep: Annotated[list[PositiveFloat], AfterValidator(_all_different)] = Field(
        [], description="checkpoints to export, in the unit of the length"
    )

    @model_validator(mode="after")
    def _keep_in_range(self) -> Self:
        for k in self.keep:
            if k > self.total:
                raise InputError("keep", f"{k:g}", f"must lie before or at the end, {self.total:g} {self.unit}")
            if self.unit == "steps" and k != int(k):
                raise InputError("keep", f"{k:g}", "must be a whole number of steps")
        return self

    @property
    def kept(self) -> list[float]:
        """The exported checkpoints in order; the last one always is the end of training."""
        return sorted({*self.keep, self.total})


class Tune(Optimiser):
    """How the teacher is fine-tuned on the data before it labels them."""

    lr: PositiveFloat
    batch: PositiveInt = 8
    seed: Seed = 0


class Model(Section):
    """A causal language model; `drop_layers: [12, 20]` cuts layers 12 to 19 out of it."""

    model: Ref
    drop_layers: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.drop_layers and not 0 <= self.drop_layers[0] < self.drop_layers[1]:
            raise InputError("drop_layers", f"{self.drop_layers}", "must be [first, end) with 0 <= first < end")
        return self


class Teacher(Model):
    """The model that gives the soft labels; without `tune` it is used as it is."""

    tune: Tune | None = None


class Data(Section):
    """Instruction data and how they become tokens."""

    source: Ref
    recipe: Use = Use(name="dolly")
    template: Use = Use(name="chat")
    max_prompt: PositiveInt = Field(256, description="rows with a longer prompt (tokens) are dropped")
    max_length: PositiveInt = Field(512, description="prompt and response (tokens); the response is cut at it")
    heldout: PositiveInt = Field(1000, description="rows never trained on, for held-out losses")
    test: Annotated[int, Field(ge=0)] = Field(0, description="more such rows, which no loss sees: `heldout_answers` answers them")
    limit: PositiveInt | None = Field(None, description="use only so many rows")

    @model_validator(mode="after")
    def _room_for_a_response(self) -> Self:
        if self.max_prompt >= self.max_length:
            raise InputError("max_prompt", f"{self.max_prompt}", f"must be less than max_length {self.max_length}")
        if self.limit is not None and self.limit <= self.heldout + self.test:
            wanted = f"heldout {self.heldout}" + (f" and test {self.test}" if self.test else "")
            raise InputError("limit", f"{self.limit}", f"must be more than {wanted}, to leave rows to train on")
        return self


class Objective(Section):
    """What is minimised: hard + alpha x soft, the soft term at a temperature and times its square."""

    loss: Use = Field(default=Use(name="cross_entropy"), description="between the teacher's distribution and the student's")
    temperature: PositiveFloat = 1.0
    weighting: Literal["sum", "convex"] = Field(default="sum", description="convex: (1 - alpha) hard + alpha soft")


class SoftLabels(Section):
    """How the teacher's outputs are kept: a form, with its parameters beside it."""

    form: Use = Use(name="hidden")
    compute: Dtype = Field(default="float32", description="of the teacher's pass; only what is kept is rounded to the form's own type")
    batch: PositiveInt = Field(default=8, description="rows in one pass of the teacher")

    @model_validator(mode="before")
    @classmethod
    def _unfold(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("form", "hidden"), str):
            return value
        params = {key: inner for key, inner in value.items() if key not in cls.model_fields}
        fields = {key: inner for key, inner in value.items() if key in cls.model_fields}
        return fields | {"form": {"name": value.get("form", "hidden"), **params}}


class Augment(Section):
    """The teacher's greedy answers, for points whose labels are not the original responses alone."""

    max_new_tokens: PositiveInt = Field(default=256, description="where an answer is cut")
    batch: PositiveInt = 8
    compute: Literal["float32", "bfloat16"] = Field(default="float32", description="the teacher's own precision")
    engine: Literal["transformers", "vllm"] = Field(default="transformers", description="what generates answers; vllm needs GPUs")


class Axes(Section):
    """The grid: every combination is a point."""

    lr: Annotated[list[PositiveFloat], Field(min_length=1)]
    batch: Annotated[list[PositiveInt], Field(min_length=1, description="sequences per optimiser step")]
    alpha: Annotated[list[NonNegative], Field(min_length=1, description="weight of the soft labels; 0 is SFT")]
    seed: Annotated[list[Seed], Field(min_length=1)] = [0]
    labels: Annotated[list[Labels], Field(min_length=1, description="the responses to train on")] = ["gold"]
    teacher: Annotated[list[Slug], AfterValidator(_all_different)] = Field(
        default=[], description="of `teachers`, `ensembles`; default: all"
    )


class PointSpec(Section):
    """One point by hand, for `include` and `exclude`."""

    lr: PositiveFloat
    batch: PositiveInt
    alpha: NonNegative
    seed: Seed = 0
    labels: Labels = "gold"
    teacher: Slug | None = Field(default=None, description="needed where the grid has several and the point uses one")


class Scoring(Section):
    """What is measured on which checkpoints."""

    tasks: Annotated[list[Use], Field(min_length=1)]
    metrics: list[Use] = Field([], description="of answers, beside each task's own, on every task that has what they need")
    decoding: Annotated[list[Use], Field(min_length=1, description="every generation task is answered under each")] = [Use(name="greedy")]
    checkpoints: Literal["all", "last"] = "all"
    references: Annotated[list[Literal["student", "teacher"]], AfterValidator(_all_different)] = ["student", "teacher"]
    engine: Literal["transformers", "vllm"] = Field("transformers", description="what generates answers; vllm needs GPUs")
    likelihood: Literal["hflm", "shared_prefix"] = Field(
        "hflm", description="hflm: the numbers of the lm_eval command, bit for bit; shared_prefix: a question's choices together, faster"
    )
    batch: PositiveInt = 8
    dtype: Dtype = "float32"


class OwnAnswers(Section):
    """Answers of the untrained student, and what finds the hallucinations in them."""

    task: Use
    metric: Use = Field(description="of factual consistency")
    threshold: float = Field(50.0, description="a sentence that the metric scores lower is hallucinated, unless it names spans itself")


class Lens(Section):
    """A Lookback Lens: what trains it, a file of annotated responses or the untrained student's own; or one that is there already.

    With nothing said, the family llama2 takes the one that was published for it.
    """

    annotations: str | None = Field(default=None, description="the format of `source`")
    source: Ref | None = None
    own: OwnAnswers | None = Field(default=None, description="instead of a file")
    trained: Annotated[str, AfterValidator(_named_lens)] | None = Field(
        default=None, description="a lens's folder, a published classifier, or `published`; annotations then test it and train nothing"
    )
    window: PositiveInt = Field(default=8, description="tokens of a sliding window")
    max_words: PositiveInt = Field(default=700, description="where a document is cut that comes without a stored prompt")
    limit: PositiveInt | None = Field(default=None, description="use only so many responses of the file")


class Report(Section):
    """How the tables compare points."""

    baseline: Literal["sft"] = "sft"
    primary: str | None = Field(default=None, description="task/metric that the verdict is about")
    checkpoint: Literal["last", "best_heldout"] = "last"
    margin: dict[str, NonNegative] = Field(default={}, description="by task: how much worse still counts as no harm")


class Runtime(Section):
    """Where and how it runs. Nothing here changes an id or, within float error, a number."""

    store: Annotated[str, AfterValidator(lambda text: local_path(text, seen_by_all=True))]
    workers: PositiveInt | Literal["auto"] = "auto"
    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="auto: GPUs if the cluster has any")
    accelerator: Annotated[str, Field(min_length=1)] | None = Field(None, description="use only GPUs of this type, as Ray names it: H100")
    engine: Use = Field(default=Use(name="ddp"), description="how the workers of a point share a model: ddp, fsdp, deepspeed")
    gradient_checkpointing: bool = Field(False, description="less memory for a second forward pass")
    micro_batch: PositiveInt | None = Field(None, description="sequences in one forward pass of a worker")
    checkpoint_every: PositiveInt = Field(50, description="steps between checkpoints that a point resumes from")
    mlflow: Annotated[str, AfterValidator(tracking_address)] | None = Field(
        None, description="tracking URI; null keeps a sqlite file in the store"
    )

    @model_validator(mode="after")
    def _accelerated(self) -> Self:
        if self.accelerator and self.device == "cpu":
            raise InputError("accelerator", f"{self.accelerator} with device cpu", "use device: gpu, or leave it out")
        return self


class Grid(Section):
    """A whole experiment: one family of models, one data set, one grid."""

    name: Slug
    question: str = ""
    family: Slug
    teacher: Teacher | None = None
    teachers: dict[Slug, Teacher] = Field(default={}, description="several of them by name, instead of `teacher`: an axis of the grid")
    ensembles: dict[Slug, Annotated[dict[Slug, PositiveFloat], Field(min_length=2)]] = Field(
        default={}, description="more teachers: averages of the probabilities of some `teachers`, with these weights"
    )
    student: Model
    data: Data
    soft_labels: SoftLabels = SoftLabels()
    objective: Objective = Objective()
    augment: Augment = Augment()
    train: Train
    axes: Axes
    include: list[PointSpec] = []
    exclude: list[PointSpec] = []
    score: Scoring
    lens: Lens | None = None
    report: Report = Report()
    runtime: Runtime

    @property
    def all_teachers(self) -> dict[str, Teacher]:
        """The teachers by name; the only one of `teacher` is called `teacher`."""
        return {"teacher": self.teacher} if self.teacher else self.teachers

    def models(self) -> dict[str, tuple[str, Model]]:
        """Where in the file every model stands, and the model, by its role: `student`, or a teacher's name."""
        where = "teacher" if self.teacher else "teachers.{}"
        return {"student": ("student", self.student)} | {name: (where.format(name), t) for name, t in self.all_teachers.items()}

    @classmethod
    def only_scoring(cls, name: str, score: Scoring, template: Use, lens: Lens | None, runtime: Runtime) -> Grid:
        """A grid without points, for models that are only scored: it lacks every section that training needs."""
        return cls.model_construct(
            name=name,
            question="How do these models score?",
            family="models",
            teacher=None,
            teachers={},
            ensembles={},
            data=Data.model_construct(template=template),
            score=score,
            lens=lens,
            report=Report(),
            runtime=runtime,
        )
