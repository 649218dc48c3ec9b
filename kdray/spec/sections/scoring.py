"""What is measured: tasks, metrics, decodings, and a Lookback Lens."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt

from kdray.spec import declare
from kdray.spec.errors import InputError
from kdray.spec.marks import Enters, Selects
from kdray.spec.sections.base import ENTERS, SELECTS, Dtype, Ref, Section, Use, all_different, well_formed

# By the authors of Lookback Lens, for Llama-2-7B-chat: windows of 8 tokens of its summaries of CNN/DailyMail.
PUBLISHED_LENS = (
    "https://raw.githubusercontent.com/voidism/Lookback-Lens/aebfbf65f68a301cba0605dd79c6e3f40b6fb7c7/classifiers/"
    "classifier_anno-cnndm-7b_sliding_window_8.pkl#sha256=dafc4fda81b765bed4f7030b992a195b6d2bf2dd20ce368756d63a01fd73232c"
)


def _named_lens(text: str) -> str:
    if ":" not in text and text != "published":
        raise InputError("", f"'{text}'", "write file:FOLDER, or published")
    return PUBLISHED_LENS if text == "published" else well_formed(text)


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
    decoding: Annotated[list[Use], Selects(declare.Decoding)] = Field(
        default=[Use(name="greedy")],
        min_length=1,
        description=(
            "every generation task is answered under each: `greedy`, `sampled`, `dola`, `lookback_guided`, `selfcite` "
            "(see docs/decoding.md)"
        ),
    )
    choices: Annotated[list[Use], Selects(declare.Decoding)] = Field(
        default=[Use(name="greedy")],
        min_length=1,
        description=(
            "every multiple-choice task is scored under each: `greedy`, by plain likelihood, and `dola` (see"
            " docs/scoring.md)"
        ),
    )
    checkpoints: Annotated[Literal["all", "last", "best_heldout", "best_answers"], SELECTS] = Field(
        "all",
        description=(
            "which of the kept checkpoints are scored; `best_heldout` and `best_answers`, of each point that one which"
            " `report.checkpoint`, set alike, chooses once it has trained; for `best_answers` the held-out rows are"
            " answered at all of them"
        ),
    )
    references: Annotated[list[Literal["student", "teacher"]], AfterValidator(all_different), SELECTS] = Field(
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
