"""What a component says of itself: `DECLARED = declare.Loss(version=1, sparse=True)` in its file.

A plan reads such a line from the file's source, without importing it, so that all values are written out. An unknown,
missing or misspelt field is an error that names the file. The class is the component's kind: what differs between
components of a kind is asked for here, never by a component's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, PositiveInt
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(strict=True, extra="forbid")
ShortName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,12}$")]  # in tables and MLflow
Needs = Literal["reference", "source", "wrong", "short"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Declared:
    """Of every component. `version` enters ids: a new one makes again what this component made.

    `later` are parameters that came after it was first used: they enter ids only where they are not at their defaults,
    so that what was made before keeps its id.
    """

    word: ClassVar[str]  # the kind as users read it
    folder: ClassVar[str]  # in the package
    group: ClassVar[str] = ""  # of entry points by which installed distributions give more; none where they cannot
    version: PositiveInt
    later: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """Those of its own parameters that kdray itself reads: it must have them."""
        return ()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Recipe(Declared):
    """A function from a row of the data to an `Example`, or a `Document` where it makes no `prompts`.

    `columns` must be there: `a.b` is a field inside of one, `a|b` one under either name. `column_parameters` are the
    parameters that name more of them, `passages` those whose columns may hold lists of passages. `answer` is the column
    of right answers and where the choices are that they are among.
    """

    word: ClassVar[str] = "recipe"
    folder: ClassVar[str] = "data/recipes"
    group: ClassVar[str] = "kdray.recipes"
    columns: tuple[str, ...] = ()
    column_parameters: tuple[str, ...] = ()
    passages: tuple[str, ...] = ()
    answer: tuple[str, str] | None = None
    prompts: bool = True

    @property
    def reads(self) -> tuple[str, ...]:
        return self.column_parameters


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Template(Declared):
    """A function from an example and a tokenizer to a prompt's text.

    `begins`: it begins a prompt with the model's BOS token by itself, where the model wants one. `space`: responses
    stand behind a space.
    """

    word: ClassVar[str] = "template"
    folder: ClassVar[str] = "data/templates"
    group: ClassVar[str] = "kdray.templates"
    begins: bool = False
    space: bool = False


@dataclass(frozen=True, config=STRICT)
class Param:
    """The value of a component's own parameter."""

    name: str


@dataclass(frozen=True, config=STRICT)
class Kept:
    """A tensor that a form of soft labels keeps, one row a response token.

    `type` is a type of numbers, `id` the smallest that holds every token's id. The row's width is the sum of `width`, 1
    if that is empty. `when`: it is kept only where the component's parameters have these values.
    """

    name: str
    type: Literal["float32", "float16", "bfloat16", "int8", "id"] | Param
    width: tuple[Literal["hidden", "vocabulary"] | Param, ...] = ()
    when: Mapping[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Form(Declared):
    """A class that says what of a teacher's outputs is kept, and how it is read back.

    Nothing is `kept` where the teacher itself is asked at every step. `head`: what is kept is read through the
    teacher's output head, which is kept once beside it. `tempered`: it holds for one temperature, as a few entries of
    the distribution. `asked`: its signal can be asked about any text, also one that nobody knew before.
    """

    word: ClassVar[str] = "soft labels"
    folder: ClassVar[str] = "distill/signals"
    group: ClassVar[str] = "kdray.forms"
    kept: tuple[Kept, ...] = ()
    head: bool = False
    tempered: bool = False
    asked: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        named = (param.name for kept in self.kept for param in (kept.type, *kept.width) if isinstance(param, Param))
        return (*named, *(name for kept in self.kept for name in kept.when))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Loss(Declared):
    """A function between two distributions, [N, V] logits each, to unreduced nats per token, [N].

    `sparse`: the file's function `sparse` gives it from a few entries of the teacher's distribution.
    `softmax_difference`: its gradient with respect to the student's logits is softmax(student) - softmax(teacher), so
    that it is cross-entropy, `less_entropy` of the teacher or not: the fused loss then needs no autograd.
    `any_vocabulary`: it compares distributions over different tokens, [N, V] and [N, W].
    """

    word: ClassVar[str] = "loss"
    folder: ClassVar[str] = "distill/losses"
    group: ClassVar[str] = "kdray.losses"
    sparse: bool = False
    softmax_difference: bool = False
    less_entropy: bool = False
    any_vocabulary: bool = False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Schedule(Declared):
    """A function from the share of the steps behind the warm-up, 0 to 1, to the share of lr."""

    word: ClassVar[str] = "schedule"
    folder: ClassVar[str] = "train/schedules"
    group: ClassVar[str] = "kdray.schedules"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Engine(Declared):
    """A class that spreads a student over ranks: see `kdray.train.engines`.

    `whole`: between steps every rank holds all of its weights, so that it can generate. `encoder_decoder`: also one
    whose backbone has two stacks of layers. `beside`: a copy of its state can be written while it takes steps.
    """

    word: ClassVar[str] = "engine"
    folder: ClassVar[str] = "train/engines"
    group: ClassVar[str] = "kdray.engines"
    whole: bool = False
    encoder_decoder: bool = False
    beside: bool = False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Usual:
    """How much a task of the usual data is: rows (None: only its file tells), tokens of a prompt (or of a question with
    one of its choices, and of this `choice` alone), and choices.
    """

    rows: PositiveInt | None = None
    tokens: PositiveInt
    choices: PositiveInt = 1
    choice: PositiveInt | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Task(Declared):
    """What every task declares.

    `short` maps each metric to its name in tables and MLflow; the first is the task's headline. `lower_is_better` are
    those of them that should fall. `columns` and `column_parameters` are as for recipes. `usual` is what a price is
    told by. `several`: it may be written `summaries:NAME` too, so that it can stand several times in a grid; its scores
    are then called after that name.
    """

    word: ClassVar[str] = "task"
    folder: ClassVar[str] = "score/tasks"
    group: ClassVar[str] = "kdray.tasks"
    named: ClassVar[bool] = False
    short: Mapping[str, ShortName]
    lower_is_better: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    column_parameters: tuple[str, ...] = ()
    several: bool = False
    usual: Usual | None = None

    def __post_init__(self) -> None:
        if unknown := [metric for metric in self.lower_is_better if metric not in self.short]:
            raise ValueError(f"lower_is_better names {unknown[0]}, which is not in short")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class HeldoutTask(Task):
    """Log-likelihoods on the grid's own held-out rows."""

    @property
    def reads(self) -> tuple[str, ...]:
        return ("limit",)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ChoiceTask(Task):
    """A multiple-choice task of lm-eval's.

    `config` is its official file; without one the file's functions `config` and, where it declares no columns of a
    table, `documents` give it. `answer` is the column of right answers, and where the letters or choices are that they
    are among. `named`: the task is written `lm_eval:NAME`. `confidence`: the report shows how sure models are of wrong
    answers. `ratios`: a decoding that contrasts layers scores its choices by the log-ratios as they are, without a
    softmax over them.
    """

    config: str | None = None
    answer: tuple[str, str] | None = None
    named: bool = False  # pyright: ignore[reportIncompatibleVariableOverride]
    confidence: bool = False
    ratios: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        return ("source", "limit", "shots", "shots_source", "chat_template")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AnswerTask(Task):
    """A function from a row to a `Question`, or with `rows` none: it asks the grid's own prompts, unseen ones or those
    trained on.

    `gives` says what metrics find in it: `reference`, `source` and `wrong` texts, and whether right answers are
    `short`. `metrics` and those of the grid score the answers. `factual_rate`: answers are held against a text, so that
    a lens can look at them. Plain-text prompts by id are in the file's `FORMS`.
    """

    gives: tuple[Needs, ...]
    metrics: tuple[str, ...] = ("rouge",)
    factual_rate: bool = False
    rows: Literal["unseen", "train"] | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        own = ("limit", "max_new_tokens") if self.rows else ("source", "limit", "prompt", "max_new_tokens")
        return (*own, *self.column_parameters)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Metric(Declared):
    """A function from answers to numbers, or a class of such: see `kdray.score.answers`.

    `scores` names its numbers, the one that tables show first; all rates are in percent, and all rise with quality.
    `needs` says what a task must give. The rest is for those that cost more than a look at the text.
    """

    word: ClassVar[str] = "metric"
    folder: ClassVar[str] = "score/metrics"
    group: ClassVar[str] = "kdray.metrics"
    scores: Annotated[tuple[ShortName, ...], Field(min_length=1)]
    needs: tuple[Needs, ...] = ()
    slow: bool = False  # measured by a step of its own, so that another metric never takes it again
    models: Mapping[str, bool] = Field(
        default_factory=dict
    )  # parameters that are references to models: are their weights needed?
    spans: bool = False  # its rows have the hallucinated `spans` of an answer, as character offsets
    whole: bool = False  # an answer that it scores low is hallucinated as a whole
    samples: tuple[str, ...] = ()  # parameters of answers that are drawn at random for this metric
    answerer: bool = False  # it asks the model that answered, and is slow
    cited: bool = False  # it is of answers by decodings that cite, and of no others
    counts: tuple[str, ...] = ()  # whole numbers of its rows whose totals are told, and are no scores
    runtime: tuple[str, ...] = ()  # parameters that change no number
    requires: tuple[str, ...] = ()  # Python packages that only this metric needs: `pip install 'kdray[metrics]'`
    nltk_data: Mapping[str, str] = Field(
        default_factory=dict
    )  # data of nltk's, unless the parameter of that name is false
    endpoint: bool = False  # it asks a server that the environment names
    standin: bool = False  # it stands in for a metric that cannot be had: the verdict says that it measures no facts

    @property
    def reads(self) -> tuple[str, ...]:
        drawn = ("samples", "temperature") if self.samples else ()
        return (*self.models, *self.samples, *drawn, *self.runtime, *self.nltk_data)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Decoding(Declared):
    """A function from prompts to answers: see `kdray.score.decodings`.

    `vllm`: `score.engine: vllm` can do the same. `needs` says what a task must give. `references` are parameters that
    name local files, with the words that may stand there instead. `layers`: its parameter `layers` names layers of the
    model. `choices`: its file's function `likelihoods` scores the choices of a question too, by these of its
    parameters. `encoder_decoder`: models can be asked by it too whose encoder reads the prompt. `cites`: its file's
    function `citations` gives an answer's statements with what is cited for them.
    """

    word: ClassVar[str] = "decoding"
    folder: ClassVar[str] = "score/decodings"
    group: ClassVar[str] = "kdray.decodings"
    vllm: bool = False
    needs: tuple[Needs, ...] = ()
    references: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    layers: bool = False
    choices: tuple[str, ...] | None = None
    encoder_decoder: bool = False
    cites: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        return (*self.references, *(("layers",) if self.layers else ()), *(self.choices or ()))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Annotations(Declared):
    """A function from a file to annotated responses; `beside` is another file that must lie in the same folder."""

    word: ClassVar[str] = "annotations"
    folder: ClassVar[str] = "lens/sources"
    group: ClassVar[str] = "kdray.annotations"
    beside: str | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Stage(Declared):
    """A function that makes the missing ones of some steps."""

    word: ClassVar[str] = "stage"
    folder: ClassVar[str] = "stages"


KINDS: tuple[type[Declared], ...] = (
    Recipe,
    Template,
    Form,
    Loss,
    Schedule,
    Engine,
    Task,
    Metric,
    Decoding,
    Annotations,
    Stage,
)
