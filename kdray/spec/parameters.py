"""The keyword-only arguments of components: what their annotations may say, and how values are checked by them."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter
from pydantic.errors import PydanticUserError

REQUIRED = object()
Share = Annotated[float, Field(gt=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Scalars = dict[str, str | int | float | bool]
# names of numbers with a range, as annotations of components: pydantic's, and those above
WORDS = {
    "PositiveInt": "int > 0",
    "NonNegativeInt": "int >= 0",
    "PositiveFloat": "float > 0",
    "NonNegativeFloat": "float >= 0",
    "Share": "float > 0 and < 1",
    "Fraction": "float >= 0 and <= 1",
    "Scalars": "a mapping of names to texts, numbers, true or false",
}


class _Literal:
    """`Literal` that tells 1 from True and 1.0, which Python and pydantic hold for equal."""

    def __class_getitem__(cls, choices: Any) -> Any:
        listed = choices if isinstance(choices, tuple) else (choices,)

        def exact(value: Any) -> Any:
            if not any(type(value) is type(choice) and value == choice for choice in listed):
                raise ValueError(f"must be one of {listed}")
            return value

        return Annotated[Literal[choices], BeforeValidator(exact)]


def _written_alike(kind: Any) -> Any:
    """0.0 and -0.0 are the same setting and must give the same id."""
    return Annotated[kind, AfterValidator(lambda value: value + 0.0)]


# what the annotation of a component's parameter may be made of
TYPES: dict[str, Any] = {
    **{kind.__name__: kind for kind in (int, str, bool, list, dict)},
    **{name: getattr(pydantic, name) for name in ("PositiveInt", "NonNegativeInt")},
    **{name: _written_alike(getattr(pydantic, name)) for name in ("PositiveFloat", "NonNegativeFloat")},
    "float": _written_alike(float),
    "Share": _written_alike(Share),
    "Fraction": _written_alike(Fraction),
    "Scalars": Scalars,
    "Literal": _Literal,
}


@dataclass(frozen=True)
class Parameter:
    """One keyword argument: its annotation as written, and its default (`REQUIRED` for none)."""

    annotation: str
    default: Any

    def check(self, value: Any) -> Any:
        """`value` as the annotation has it: 1 where a float is wanted is 1.0, since both must give the same id.

        Raises:
            ValueError: it does not fit.
            TypeError: the annotation is made of something else than `TYPES`.
        """
        return self.type.validate_json(json.dumps(value))

    @property
    def type(self) -> TypeAdapter[Any]:
        """What the annotation says, as pydantic checks it.

        Raises:
            TypeError: it is made of something else than `TYPES`.
        """
        return _adapter(self.annotation)


@functools.cache
def _adapter(annotation: str) -> TypeAdapter[Any]:
    try:
        wanted = eval(annotation, {"__builtins__": {}}, TYPES)  # of a component's source, which is code anyway
        return TypeAdapter(wanted, config=ConfigDict(strict=True, allow_inf_nan=False))
    except (NameError, SyntaxError, TypeError, AttributeError, PydanticUserError):
        raise TypeError(f"a component's parameter is annotated '{annotation}', which the schema cannot check") from None


def in_words(annotation: str) -> str:
    """An annotation as a user reads it."""
    for name, words in WORDS.items():
        annotation = annotation.replace(name, words)
    return annotation
