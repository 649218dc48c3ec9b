"""What is known of a decoding without a model: its label, the files that it names, and which layers DoLa may contrast
with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

from kdray.spec import declare
from kdray.spec.components import bind_use, component, components
from kdray.spec.errors import InputError
from kdray.spec.refs import Reference, parse_reference
from kdray.spec.sections.base import Use
from kdray.spec.sections.training import AlignSection

Layers = Literal["low", "high"] | Sequence[int]
GUIDE = "guide"  # the parameter that may be the lens of the grid
PLAIN = "greedy"  # the decoding whose scores have a task's plain metric names; of choices their plain likelihood


def decoding_label(use: Use) -> str:
    """A decoding's short name in slugs and metrics: its own, then the parameters that are not at their defaults."""
    declared = component(declare.Decoding, use.name, "score.decoding").parameters
    changed = {key: value for key, value in use.params.items() if value != declared[key].default}
    return "-".join([use.name, *(f"{key}-{_short(value)}" for key, value in changed.items())])


def aligned_by(section: AlignSection) -> Use:
    """The decoding by which the answers are cited that an aligned point learns from."""
    given = Use.model_construct(name="selfcite", params={"candidates": section.candidates})
    return bind_use(given, declare.Decoding, "align")


def bind_choices(use: Use, where: str) -> Use:
    """A decoding under which choices are scored, with those of its parameters that this takes.

    Raises:
        InputError: it cannot score choices, or a parameter is set that this does not take.
    """
    found = component(declare.Decoding, use.name, where)
    bound = bind_use(use, declare.Decoding, where).params
    able = [
        name
        for name, other in components(declare.Decoding).items()
        if name == PLAIN or other.declared.choices is not None
    ]
    if use.name not in able:
        raise InputError(where, f"'{use.name}', which scores no choices", f"one of {', '.join(able)}")
    read = found.declared.choices or ()
    for name, value in bound.items():
        if name not in read and value != found.parameters[name].default:
            raise InputError(
                f"{where}.{name}", str(value), f"choices are scored by {' and '.join(read)} alone: leave it out"
            )
    return Use.model_construct(name=use.name, params={name: bound[name] for name in read})


def references(use: Use, where: str) -> dict[str, Reference]:
    """The local files and folders among a decoding's parameters, by name.

    Raises:
        InputError: one is neither `file:` and a path nor one of the words that may stand there.
    """
    found = {}
    for name, words in component(declare.Decoding, use.name, where).declared.references.items():
        if use.params[name] in words:
            continue
        if not use.params[name].startswith("file:"):
            raise InputError(f"{where}.{name}", f"'{use.params[name]}'", f"{', '.join(words)}, or file: and a path")
        found[name] = parse_reference(use.params[name], f"{where}.{name}")
    return found


def guided_by_grids_lens(use: Use) -> bool:
    """Whether a decoding is guided by the lens that the grid makes."""
    return use.params.get(GUIDE) == "lens"


def candidate_layers(layers: Layers, count: int, tied: bool, field: str = "layers") -> list[int]:
    """The layers that DoLa chooses a premature one from, in a model of `count` layers; layer 0 is the embeddings.

    `low` and `high` are the even layers of the lower and the upper half or, above 40 layers, of the first and the last
    20 (DoLa, appendix A.2). Where the output head is tied to the embeddings, layer 0 predicts the token that it was
    given, so the buckets leave it out.

    Raises:
        InputError: layers that the model does not have, layer 0 of a tied model, a layer twice, or none at all.
    """
    first = 1 if tied else 0
    if isinstance(layers, str):
        span = count / 2 if count <= 40 else 20
        start, end = (first, span) if layers == "low" else (max(count - span, first), count)
        chosen = [layer for layer in range(0, count, 2) if start <= layer < end]
    else:
        chosen = list(layers)
    allowed = f"layers from {first} to {count - 1}, each once" + (" (0 is tied to the output)" if tied else "")
    if not chosen or len(set(chosen)) < len(chosen) or not all(first <= layer < count for layer in chosen):
        raise InputError(
            field, f"{layers} of a model with {count} layers" if isinstance(layers, str) else f"{layers}", allowed
        )
    return chosen


def _short(value: Any) -> str:
    """A parameter's value in a label; of a reference only the name of what it points to."""
    words = value if isinstance(value, list) else [PurePosixPath(value).stem if "/" in str(value) else value]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(map(str, words)))
