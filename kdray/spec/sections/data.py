"""What is learned: the data, the teacher's answers to them, and its soft labels."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from kdray.spec import declare
from kdray.spec.errors import InputError
from kdray.spec.languages import require_identified
from kdray.spec.marks import Enters
from kdray.spec.sections.base import ENTERS, SELECTS, Dtype, Quantised, Ref, Section, Seed, Use, all_different

Language = Annotated[str, Field(pattern="^[a-z]{2,3}$")]


def _identified(languages: list[Language]) -> list[Language]:
    require_identified(languages, "")
    return languages


Languages = Annotated[
    list[Language], Field(min_length=1), AfterValidator(all_different), AfterValidator(_identified), ENTERS
]


class CurateSection(Section):
    """Which training rows are left when what is often spoken of is thinned out: MetaCLIP 2's curation."""

    metadata: Annotated[Ref | None, Enters(by_content=True)] = Field(
        None,
        description=(
            "a table of concepts, with columns `entry` and `language`, as `kdray metadata` makes one; by default the"
            " words of the rows themselves, and their pairs"
        ),
    )
    of: Annotated[list[Literal["instruction", "context", "response"]], Field(min_length=1), ENTERS] = Field(
        ["instruction"], description="the texts of a row that say what it is about"
    )
    languages: Languages = Field(
        ["en"], description="ISO 639-1 codes, among which each row's is looked for; a single one is every row's"
    )
    tail: Annotated[float, Field(gt=0, lt=1), Enters(where={"threshold": (None,)})] = Field(
        0.06,
        description=(
            "the share of all matches that those of rare concepts are to have: from it comes each language's"
            " threshold, above which a concept is thinned out"
        ),
    )
    threshold: Annotated[PositiveInt | None, Enters(unless_default=True)] = Field(
        None, description="instead of `tail`: the matches from which a concept of the first language is thinned out"
    )
    least: Annotated[PositiveInt, Enters(where={"metadata": (None,)})] = Field(
        5, description="of the rows' own words and pairs, those that occur as often and more are concepts"
    )
    pairs: Annotated[int, Field(ge=0), Enters(where={"metadata": (None,)})] = Field(
        10_000, description="at most as many pairs of their own words, the best by their tempered PMI"
    )
    seed: Annotated[Seed, ENTERS] = Field(0, description="of the draws")


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
            " (alone an encoder's)"
        ),
    )
    max_length: Annotated[PositiveInt, ENTERS] = Field(
        512,
        description=(
            "prompt and response together, in tokens, are cut there; at most the models' windows. Of an encoder-decoder"
            " each side has its own, at which a response is cut too"
        ),
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
    curate: CurateSection | None = Field(
        None, description="which of the training rows the points train on whose `rows` are not `all` (docs/curate.md)"
    )

    @model_validator(mode="after")
    def _room_for_a_response(self) -> Self:
        if self.max_prompt >= self.max_length:
            raise InputError("max_prompt", f"{self.max_prompt}", f"must be less than max_length {self.max_length}")
        if self.limit is not None and self.limit <= self.heldout + self.test:
            wanted = f"heldout {self.heldout}" + (f" and test {self.test}" if self.test else "")
            raise InputError("limit", f"{self.limit}", f"must be more than {wanted}, to leave rows to train on")
        return self


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
    quantise: Annotated[Quantised | None, Enters(unless_default=True)] = Field(
        default=None,
        description=(
            "the teacher's layers in `4bit` (NF4) or `8bit`, by bitsandbytes (`pip install 'kdray[qlora]'`): a larger"
            " teacher on a small GPU, whose soft labels are then those of the rounded weights; `online` too"
        ),
    )
    batch: Annotated[PositiveInt, ENTERS] = Field(default=8, description="rows in one pass of the teacher")
    align: Annotated[Literal["text", "position"] | None, SELECTS] = Field(
        default=None,
        description=(
            "for a teacher with another tokenizer: which of its tokens belongs to one of the student's (see"
            " docs/grid.md#a-teacher-with-another-tokenizer); `text`, the one that begins at the same place of the"
            " text; `position`, the one of the same number, for the loss `uld`"
        ),
    )

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
    quantise: Annotated[Quantised | None, Enters(unless_default=True)] = Field(
        default=None, description="the teacher's layers in `4bit` or `8bit`, as in `soft_labels`"
    )
    engine: Annotated[Literal["transformers", "vllm"], ENTERS] = Field(
        default="transformers", description="what generates the answers; `vllm` needs GPUs"
    )
