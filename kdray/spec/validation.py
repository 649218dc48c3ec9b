"""Values against the schema: pydantic checks them, and what it complains of becomes our one line."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kdray.spec.errors import InputError, did_you_mean

M = TypeVar("M", bound=BaseModel)


def validated(model: type[M], tree: dict[str, Any]) -> M:
    """The model that `tree` describes.

    Raises:
        InputError: it describes none; the first field that is wrong.
    """
    try:
        return model.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise _in_our_words(error.errors(), model) from None


def _in_our_words(errors: list[ErrorDetails], model: type[BaseModel]) -> InputError:
    """The complaint to be told: of a misspelt field before that of the one which is then missing."""
    error = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    loc = error["loc"]
    field = _field(error) or "grid"
    found = error["input"]
    shown = "empty" if found in ([], {}, "") else json.dumps(found, default=str)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    match error["type"]:
        case "extra_forbidden":
            return InputError(field, "unknown field", did_you_mean(str(loc[-1]), _siblings(loc, model)))
        case "missing":
            return InputError(field, "missing", "this field is required")
        case "value_error":
            cause = error.get("ctx", {}).get("error")
            if isinstance(cause, InputError):
                return InputError(".".join(filter(None, (_field(error), cause.field))), cause.found, cause.allowed)
            return InputError(field, shown, str(cause))
        case "json_invalid" if "recursion" in error["msg"]:
            return InputError(field, "is nested too deep", "write plain YAML")
        case (
            "json_invalid"
        ):  # the rest of JSON was written by us: a lone half of a surrogate pair is all that can be wrong
            return InputError(field, "holds text that is no Unicode", "write every character out, not as \\ud800")
        case _:
            return InputError(
                field, shown, _allowed([other["msg"] for other in errors if _field(other) == _field(error)])
            )


def _allowed(messages: list[str]) -> str:
    """pydantic's words in ours: of a union, one message a branch."""
    must = [
        re.sub(r"^\w+ should ", "must ", message).partition(" after validation")[0]
        for message in dict.fromkeys(messages)
    ]
    text = " or ".join([must[0], *(other.removeprefix("must be ") for other in must[1:])])
    return text.replace("valid array", "list").replace("an object", "a mapping")


def _field(error: ErrorDetails) -> str:
    """The path of the field as it stands in the file."""
    return ".".join(str(part) for part in error["loc"] if not _is_branch(part))


def _is_branch(part: int | str) -> bool:
    """Whether a part of pydantic's location names a branch of a union rather than a field."""
    return isinstance(part, str) and (
        part.startswith(("literal[", "constrained-", "function-")) or part in {"int", "float", "str", "[key]"}
    )


def _siblings(loc: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """The fields that are allowed where `loc` points."""
    for part in loc[:-1]:
        if not isinstance(part, str) or part not in model.model_fields:
            continue
        annotation = model.model_fields[part].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(model.model_fields)
