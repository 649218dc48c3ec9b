"""What all sections of a grid file are made of: the kinds of values, the marks of fields, and components by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from kdray.spec.errors import InputError
from kdray.spec.marks import Enters, Runs, Selects, Shown
from kdray.spec.refs import parse_reference

Dtype = Literal["float32", "bfloat16"]
Quantised = Literal["4bit", "8bit"]  # a teacher's layers by bitsandbytes: NF4, or LLM.int8()
# The original responses, the teacher's answers, both together, or what the student samples as it trains.
Labels = Literal["gold", "teacher", "both", "student"]
RowsOf = Literal["all", "balanced", "random"]  # the training rows, or those that `data.curate` chooses
Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=60)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
ENTERS, SELECTS, SHOWN, RUNS = Enters(), Selects(), Shown(), Runs()  # what ids know of a field


def _no_negative_zero(value: float) -> float:
    return value + 0.0  # -0.0 is equal to 0.0, but would be written, and so hashed, differently


Fraction = Annotated[float, Field(ge=0, le=1), AfterValidator(_no_negative_zero)]
Share = Annotated[float, Field(ge=0, lt=1), AfterValidator(_no_negative_zero)]
NonNegative = Annotated[float, Field(ge=0), AfterValidator(_no_negative_zero)]


def all_different(values: list[Any]) -> list[Any]:
    if twice := [value for i, value in enumerate(values) if value in values[:i]]:
        raise InputError(
            "", f"{twice[0]:g} twice" if isinstance(twice[0], float) else f"{twice[0]} twice", "give each once"
        )
    return values


def well_formed(text: str) -> str:
    parse_reference(text, "")
    return text


SCHEMES: dict[str, Any] = {"pattern": "^(hf:|file:|wheel:|https:)."}  # for editors; the parser says what is wrong
Ref = Annotated[str, AfterValidator(well_formed), Field(json_schema_extra=SCHEMES)]


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
