"""The schema of a grid file. Every field says what it means and, by its mark, whether ids know it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from kdray.spec import declare
from kdray.spec.errors import InputError
from kdray.spec.marks import Enters, Runs, Selects, Shown
from kdray.spec.paths import local_path, tracking_address
from kdray.spec.refs import parse_reference

Dtype = Literal["float32", "bfloat16"]
Labels = Literal["gold", "teacher", "both"]  # the original responses, the teacher's answers, or both together
Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=60)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
ENTERS, SELECTS, SHOWN, RUNS = Enters(), Selects(), Shown(), Runs()  # what ids know of a field
ADAPTED = {"method": ("lora", "qlora")}  # where there are adapters
LENGTH = Enters(instead={"unit": "unit", "length": "total"})  # 3 epochs, and no other unit


def _no_negative_zero(value: float) -> float:
    return value + 0.0  # -0.0 is equal to 0.0, but would be written, and so hashed, differently


Fraction = Annotated[float, Field(ge=0, le=1), AfterValidator(_no_negative_zero)]
Share = Annotated[float, Field(ge=0, lt=1), AfterValidator(_no_negative_zero)]
NonNegative = Annotated[float, Field(ge=0), AfterValidator(_no_negative_zero)]


def _all_different(values: list[Any]) -> list[Any]:
    if twice := [value for i, value in enumerate(values) if value in values[:i]]:
        raise InputError(
            "", f"{twice[0]:g} twice" if isinstance(twice[0], float) else f"{twice[0]} twice", "give each once"
        )
    return values


def _well_formed(text: str) -> str:
    parse_reference(text, "")
    return text


SCHEMES: dict[str, Any] = {"pattern": "^(hf:|file:|wheel:|https:)."}  # for editors; the parser says what is wrong
Ref = Annotated[str, AfterValidator(_well_formed), Field(json_schema_extra=SCHEMES)]

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
        "float32", description="of forward and backward; bfloat16 is autocast with master weights that stay float32"
    )
    method: Annotated[Literal["full", "lora", "qlora"], ENTERS] = Field(
        "full",
        description=(
            "all weights; `lora`, adapters on the linear layers; `qlora`, the same on weights in NF4 (`pip install"
            " 'kdray[qlora]'`). What is exported is a plain model, adapters merged into the weights in float32"
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
            "the sequences of a micro-batch in one row, without padding and without seeing each other; false pads them"
        ),
    )


class Train(Optimiser):
    """How every point trains."""

    keep: Annotated[list[PositiveFloat], AfterValidator(_all_different), Enters(instead={"keep": "kept"})] = Field(
        [],
        description=(
            "checkpoints to export and score, in the unit of the length; the end always is one. "
            "Part of a point: another list trains it anew"
        ),
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

    lr: Annotated[PositiveFloat, ENTERS] = Field(description="the largest learning rate")
    batch: Annotated[PositiveInt, ENTERS] = Field(8, description="sequences per optimiser step")
    seed: Annotated[Seed, ENTERS] = Field(0, description="of the order of examples, and of the adapters")


class Model(Section):
    """A causal language model; `drop_layers: [12, 20]` cuts layers 12 to 19 out of it."""

    model: Annotated[Ref, Enters(by_content=True)] = Field(
        description="`hf:org/name@commit`, `file:` and a folder or a GGUF file, or a GGUF file in a `wheel:`"
    )
    drop_layers: Annotated[Annotated[list[int], Field(min_length=2, max_length=2)] | None, ENTERS] = Field(
        default=None, description="layers to cut out of it: `[12, 20]` cuts layers 12 to 19"
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.drop_layers and not 0 <= self.drop_layers[0] < self.drop_layers[1]:
            raise InputError("drop_layers", f"{self.drop_layers}", "must be [first, end) with 0 <= first < end")
        return self


class TeacherSection(Model):
    """The model that gives the soft labels; without `tune` it is used as it is."""

    tune: Tune | None = Field(
        None, description="fine-tune it on the data first: the fields below, and those of `train` but `keep`"
    )


class Data(Section):
    """Instruction data and how they become tokens."""

    source: Annotated[Ref, Enters(by_content=True)] = Field(
        description="rows of instructions or of plain text: a table, or a data set on the hub (see docs/grid.md#data)"
    )
    recipe: Annotated[Use, Enters(declare.Recipe)] = Field(
        Use(name="dolly"),
        description=(
            "how a row becomes instruction, context, response: `dolly`, `columns`, `pubmed_qa`, `dialogsum`,"
            " `commonsense_qa`, `news`; or a `text` without a prompt"
        ),
    )
    template: Annotated[Use, Enters(declare.Template)] = Field(
        Use(name="chat"),
        description=(
            "how that becomes a prompt: `chat` (the tokenizer's own), `alpaca` (for plain models; the paper's) or"
            " `plain` (the instruction as it is); their parameters are [below](#templates)"
        ),
    )
    max_prompt: Annotated[PositiveInt, ENTERS] = Field(
        256,
        description=(
            "rows with a longer prompt, in tokens, are dropped; with the longest answer it must fit the models' windows"
        ),
    )
    max_length: Annotated[PositiveInt, ENTERS] = Field(
        512, description="prompt and response, in tokens, are cut there; at most the models' windows"
    )
    heldout: Annotated[PositiveInt, ENTERS] = Field(
        1000,
        description=(
            "rows never trained on, for held-out losses: a random choice fixed by the source row's number, "
            "the same for every tokenizer"
        ),
    )
    split: Annotated[Literal["random", "first"], Enters(unless_default=True)] = Field(
        default="random",
        description=(
            "how the rows held out are chosen: `random` as above, or the `first` of the source, as MiniLLM does"
        ),
    )
    test: Annotated[int, Field(ge=0), ENTERS] = Field(
        0, description="more of them, for `heldout_answers` alone: no loss and no choice of a checkpoint sees them"
    )
    limit: Annotated[PositiveInt | None, ENTERS] = Field(None, description="use only so many prepared rows")

    @model_validator(mode="after")
    def _room_for_a_response(self) -> Self:
        if self.max_prompt >= self.max_length:
            raise InputError("max_prompt", f"{self.max_prompt}", f"must be less than max_length {self.max_length}")
        if self.limit is not None and self.limit <= self.heldout + self.test:
            wanted = f"heldout {self.heldout}" + (f" and test {self.test}" if self.test else "")
            raise InputError("limit", f"{self.limit}", f"must be more than {wanted}, to leave rows to train on")
        return self


class ObjectiveSection(Section):
    """What is minimised: hard + alpha x soft, the soft term at a temperature and times its square."""

    loss: Annotated[Use, Enters(declare.Loss)] = Field(
        default=Use(name="cross_entropy"),
        description=(
            "the soft term, between the teacher's distribution and the student's: `cross_entropy` (the paper's),"
            " `forward_kl`, `reverse_kl`, `jsd` (with `beta`, 0.5), `total_variation`, or `adaptive`, cross-entropy"
            " that counts more where the teacher is unsure (in full from `nats` of entropy on, 1)"
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


class SoftLabelsSection(Section):
    """How the teacher's outputs are kept: a form, with its parameters beside it."""

    form: Annotated[Use, Enters(declare.Form)] = Field(
        default=Use(name="hidden"),
        description=(
            "how the teacher's outputs are kept (see docs/grid.md#soft-labels); the form's own parameters stand"
            " beside it"
        ),
    )
    compute: Annotated[Dtype, ENTERS] = Field(
        default="float32", description="type of the teacher's pass; only what is kept is rounded to the form's own type"
    )
    batch: Annotated[PositiveInt, ENTERS] = Field(default=8, description="rows in one pass of the teacher")

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

    max_new_tokens: Annotated[PositiveInt, ENTERS] = Field(
        default=256, description="where an answer of the teacher is cut"
    )
    batch: Annotated[PositiveInt, ENTERS] = Field(default=8, description="prompts in one pass of the teacher")
    compute: Annotated[Literal["float32", "bfloat16"], ENTERS] = Field(
        default="float32", description="the teacher's precision"
    )
    engine: Annotated[Literal["transformers", "vllm"], ENTERS] = Field(
        default="transformers", description="what generates the answers; `vllm` needs GPUs"
    )


class Axes(Section):
    """The grid: every combination is a point."""

    lr: Annotated[list[PositiveFloat], Field(min_length=1, description="largest learning rates"), SELECTS]
    batch: Annotated[
        list[PositiveInt],
        Field(min_length=1, description="sequences per optimiser step, whatever the number of workers"),
        SELECTS,
    ]
    alpha: Annotated[
        list[NonNegative],
        Field(min_length=1, description="weights of the soft labels; 0 is plain fine-tuning (SFT)"),
        SELECTS,
    ]
    seed: Annotated[
        list[Seed], Field(min_length=1, description="of the order of examples, of dropout and of adapters"), SELECTS
    ] = [0]
    labels: Annotated[
        list[Labels],
        Field(
            min_length=1, description="the responses to train on: `gold`, `teacher` or `both` (see docs/grid.md#labels)"
        ),
        SELECTS,
    ] = ["gold"]
    teacher: Annotated[list[Slug], AfterValidator(_all_different), SELECTS] = Field(
        default=[], description="of `teachers` and `ensembles`, those that points learn from; by default all"
    )
    smoothing: Annotated[list[Share], Field(min_length=1), AfterValidator(_all_different), SELECTS] = Field(
        default=[0],
        description="shares of uniform labels among the hard ones: label smoothing, the control that needs no teacher",
    )
    temperature: Annotated[list[PositiveFloat], AfterValidator(_all_different), SELECTS] = Field(
        default=[], description="of the soft term, by default `objective.temperature` alone"
    )


class PointSpec(Section):
    """One point by hand, for `include` and `exclude`."""

    lr: Annotated[PositiveFloat, SELECTS] = Field(description="the largest learning rate")
    batch: Annotated[PositiveInt, SELECTS] = Field(description="sequences per optimiser step")
    alpha: Annotated[NonNegative, SELECTS] = Field(
        description="weight of the soft labels; 0 is plain fine-tuning (SFT)"
    )
    seed: Annotated[Seed, SELECTS] = Field(0, description="of the order of examples, of dropout and of adapters")
    labels: Annotated[Labels, SELECTS] = Field("gold", description="the responses to train on")
    teacher: Annotated[Slug | None, SELECTS] = Field(
        default=None, description="needed where the grid has several `teachers` and the point uses one"
    )
    smoothing: Annotated[Share, SELECTS] = Field(default=0, description="share of uniform labels among the hard ones")
    temperature: Annotated[PositiveFloat | None, SELECTS] = Field(
        default=None, description="of the soft term, by default `objective.temperature`"
    )


class Scoring(Section):
    """What is measured on which checkpoints."""

    tasks: Annotated[
        list[Use],
        Field(min_length=1, description="by name or as `{name: ..., limit: 100}` (see docs/grid.md#tasks)"),
        Selects(declare.Task),
    ]
    metrics: Annotated[list[Use], Selects(declare.Metric)] = Field(
        [],
        description="of answers, beside each task's own, on every task that has what they need: see docs/summaries.md",
    )
    decoding: Annotated[
        list[Use],
        Field(
            min_length=1,
            description=(
                "every generation task is answered under each: `greedy`, `sampled`, `dola`, `lookback_guided` "
                "(see docs/decoding.md)"
            ),
        ),
        Selects(declare.Decoding),
    ] = [Use(name="greedy")]
    choices: Annotated[
        list[Use],
        Field(
            min_length=1,
            description=(
                "every multiple-choice task is scored under each: `greedy`, by plain likelihood, and `dola` (see"
                " docs/scoring.md)"
            ),
        ),
        Selects(declare.Decoding),
    ] = [Use(name="greedy")]
    checkpoints: Annotated[Literal["all", "last"], SELECTS] = Field(
        "all", description="which of the kept checkpoints are scored"
    )
    references: Annotated[list[Literal["student", "teacher"]], AfterValidator(_all_different), SELECTS] = Field(
        ["student", "teacher"], description="models scored beside the points: the untrained student and the teacher"
    )
    engine: Annotated[Literal["transformers", "vllm"], Enters(unless_default=True)] = Field(
        "transformers",
        description=(
            "what generates answers; `vllm`, on GPUs: greedy and sampled answers through ray.data.llm. Part of a"
            " score's id"
        ),
    )
    likelihood: Annotated[Literal["hflm", "shared_prefix"], ENTERS] = Field(
        "hflm",
        description=(
            "`hflm`: the numbers of the lm_eval command, bit for bit; `shared_prefix`: a question's choices together, "
            "faster (see docs/scoring.md). Part of a score's id"
        ),
    )
    batch: Annotated[PositiveInt, ENTERS] = Field(
        8, description="sequences in one pass; it changes numbers a little: part of a score's id"
    )
    dtype: Annotated[Dtype, ENTERS] = Field(
        "float32", description="of the models that are scored; part of a score's id"
    )

    def ways_of(self, task: declare.Task) -> list[Use]:
        """How a task's answers are decoded or its choices scored; none where it has neither."""
        if isinstance(task, declare.AnswerTask):
            return self.decoding
        return self.choices if isinstance(task, declare.ChoiceTask) else []


class OwnAnswers(Section):
    """Answers of the untrained student, and what finds the hallucinations in them."""

    task: Annotated[Use, Selects(declare.Task)] = Field(
        description="what it answers: `train_answers`, or documents that are not scored"
    )
    metric: Annotated[Use, Enters(declare.Metric, by_content=True)] = Field(
        description="of factual consistency, which finds the hallucinations"
    )
    threshold: Annotated[float, ENTERS] = Field(
        50.0, description="a sentence that the metric scores lower is hallucinated, unless it names spans itself"
    )


class LensSection(Section):
    """A Lookback Lens: what trains it, a file of annotated responses or the untrained student's own; or one that is
    there already.

    With nothing said, the family llama2 takes the one that was published for it.
    """

    annotations: Annotated[str | None, Enters(declare.Annotations)] = Field(
        default=None, description="the format of annotated responses in a file, `source` (see docs/grid.md#lens)"
    )
    source: Annotated[Ref | None, Enters(by_content=True)] = Field(None, description="the file of annotated responses")
    own: OwnAnswers | None = Field(
        default=None, description="instead: the untrained student's own answers, and what finds hallucinations in them"
    )
    trained: Annotated[
        Annotated[
            str, AfterValidator(_named_lens), Field(json_schema_extra={"pattern": "^(published$|file:.|https:.)"})
        ]
        | None,
        Enters(by_content=True),
    ] = Field(
        default=None,
        description=(
            "instead: `file:` and the folder of a lens, or `published`; annotations or own answers beside it then "
            "test it and train nothing"
        ),
    )
    window: Annotated[PositiveInt, ENTERS] = Field(default=8, description="tokens of its sliding windows")
    max_words: Annotated[PositiveInt, ENTERS] = Field(
        default=700, description="where a document is cut that comes without a stored prompt"
    )
    limit: Annotated[PositiveInt | None, ENTERS] = Field(
        default=None, description="use only so many responses of the file, spread evenly over it"
    )


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
            "how the workers of a point share a model: `ddp`, every one holds all of it; `fsdp`, shards of weights,"
            " gradients and optimiser; `{name: deepspeed, stage: 1, 2 or 3, offload: false}`, ZeRO. The same result but"
            " for rounding"
        ),
    )
    gradient_checkpointing: Annotated[bool, RUNS] = Field(
        False, description="activations are computed again in the backward pass: less memory, a third more time"
    )
    micro_batch: Annotated[PositiveInt | None, RUNS] = Field(
        None, description="sequences in one forward pass of a worker; by default all"
    )
    checkpoint_every: Annotated[PositiveInt, RUNS] = Field(
        50, description="steps between the checkpoints that an interrupted point resumes from"
    )
    mlflow: Annotated[Annotated[str, AfterValidator(tracking_address)] | None, RUNS] = Field(
        None,
        description=(
            "tracking URI: `http://host:port`, `sqlite:////path/of/mlflow.db`, another database's; "
            "null keeps a sqlite file in the store"
        ),
    )

    @model_validator(mode="after")
    def _accelerated(self) -> Self:
        if self.accelerator and self.device == "cpu":
            raise InputError("accelerator", f"{self.accelerator} with device cpu", "use device: gpu, or leave it out")
        return self


class Grid(Section):
    """A whole experiment: one family of models, one data set, one grid."""

    name: Annotated[Slug, SHOWN] = Field(description="of the grid, and of its MLflow experiment")
    question: Annotated[str, SHOWN] = Field("", description="what it is to answer; printed in the report")
    family: Annotated[Slug, SELECTS] = Field(description="of the models; one file holds one family")
    teacher: TeacherSection | None = Field(
        None,
        description=(
            "the model that gives soft labels and answers; may be left out if every alpha is 0 and all labels are gold"
        ),
    )
    teachers: dict[Slug, TeacherSection] = Field(
        default={},
        description=(
            "instead of `teacher`: several by name, each as above; an axis of the grid (see"
            " docs/grid.md#several-teachers)"
        ),
    )
    ensembles: Annotated[dict[Slug, Annotated[dict[Slug, PositiveFloat], Field(min_length=2)]], SELECTS] = Field(
        default={}, description="more teachers by name: weights of some `teachers`, whose probabilities are averaged"
    )
    student: Model = Field(description="the model that is trained")
    data: Data = Field(description="instruction data and how they become tokens")
    soft_labels: SoftLabelsSection = Field(SoftLabelsSection(), description="how the teacher's outputs are kept")
    objective: ObjectiveSection = Field(ObjectiveSection(), description="what is minimised")
    augment: Augment = Field(
        Augment(), description="the teacher's greedy answers, for points whose labels are not gold alone"
    )
    train: Train = Field(description="how every point trains")
    axes: Axes = Field(description="lists; every combination is a point")
    include: list[PointSpec] = Field(
        [],
        description=(
            "more points, one by one: `{lr: 1e-5, batch: 4, alpha: 1, seed: 0, labels: gold}`; the last two may be left"
            " out, and so may `smoothing` and `temperature`; with `teachers`, `teacher` too"
        ),
    )
    exclude: list[PointSpec] = Field([], description="points of the axes to leave out, written likewise")
    score: Scoring = Field(description="what is measured on which checkpoints")
    lens: LensSection | None = Field(None, description="a Lookback Lens for factual rates")
    report: Report = Field(Report(), description="how the tables compare points")
    runtime: Runtime = Field(
        description="where and how it runs: nothing here changes an id or, but for rounding, a number"
    )

    @property
    def all_teachers(self) -> dict[str, TeacherSection]:
        """The teachers by name; the only one of `teacher` is called `teacher`."""
        return {"teacher": self.teacher} if self.teacher else self.teachers

    def models(self) -> dict[str, tuple[str, Model]]:
        """Where in the file every model stands, and the model, by its role: `student`, or a teacher's name."""
        where = "teacher" if self.teacher else "teachers.{}"
        return {"student": ("student", self.student)} | {
            name: (where.format(name), t) for name, t in self.all_teachers.items()
        }

    @classmethod
    def only_scoring(cls, name: str, score: Scoring, template: Use, lens: LensSection | None, runtime: Runtime) -> Grid:
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
