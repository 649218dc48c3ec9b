"""Whether the grid's decodings and lens fit its models: layers that there are, guides of the right shape.

Reads headers only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdray.artifacts.lens import GUIDE, RECORD, WEIGHTS
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.decodings import candidate_layers, references
from kdray.spec.errors import InputError
from kdray.spec.folders import read_config
from kdray.spec.grid import Grid
from kdray.spec.lens import PICKLED, PUBLISHED_SHAPE
from kdray.spec.paths import not_found
from kdray.spec.refs import Reference, parse_reference
from kdray.spec.sections.base import Use
from kdray.spec.sections.models import Model

LENS = (WEIGHTS, RECORD)


@dataclass(frozen=True)
class Guide:
    """What a guide is for: `size` is the shape of its weights, `layer` the one whose hidden states a classifier is
    on.
    """

    kind: str
    size: list[int]
    layer: int | None = None


@dataclass(frozen=True)
class Shape:
    """What of a model's configuration a decoding depends on."""

    layers: int
    heads: int
    width: int
    tied: bool


def shape_of(folder: Path, cut: Model | None = None) -> Shape | None:
    """The shape of the model in a folder, after `cut` has dropped layers; None where its configuration does not say."""
    config = read_config(folder)
    try:
        dropped = cut.drop_layers if cut and cut.drop_layers else [0, 0]
        layers = config["num_hidden_layers"] - (dropped[1] - dropped[0])
        return (
            None
            if layers < 1
            else Shape(
                layers, config["num_attention_heads"], config["hidden_size"], config.get("tie_word_embeddings", False)
            )
        )
    except KeyError:
        return None


def check_shapes(grid: Grid, shapes: Mapping[str, Shape | None], *, by_role: bool) -> None:
    """Whether the grid's decodings and a lens that is there already fit its models, by role, or those that are only
    scored, by name.

    Raises:
        InputError: a layer that a model does not have, a file that is no guide, or a guide or lens for a model of
            another shape.
    """
    called = {f"the {name}" if by_role else name: shape for name, shape in shapes.items()}
    students = {"the student": shapes["student"]} if by_role else called
    _check_decodings(grid, called if "teacher" in grid.score.references else students)
    if grid.lens is not None and grid.lens.trained is not None:
        _check_lens(parse_reference(grid.lens.trained, "lens.trained"), students)


def _check_decodings(grid: Grid, shapes: Mapping[str, Shape | None]) -> None:
    decodings = {f"score.decoding.{i}": use for i, use in enumerate(grid.score.decoding)}
    for field, use in (decodings | {f"score.choices.{i}": use for i, use in enumerate(grid.score.choices)}).items():
        guides = [(f"{field}.{name}", Path(ref.name)) for name, ref in references(use, field).items()]
        wanted = [(where, _guide(path, where)) for where, path in guides]
        for name, shape in shapes.items():
            if shape is None:
                continue
            if declared(declare.Decoding, use.name).layers:
                _check_layers(use, shape, f"{field}.layers", name)
            for where, guide in wanted:
                own = [shape.layers, shape.heads] if guide.layer is None else [shape.width]
                if guide.size != own:
                    raise InputError(where, f"a {guide.kind} of shape {guide.size}", f"{name} has {own}")
                if guide.layer is not None and not 1 <= guide.layer <= shape.layers:
                    raise InputError(
                        where, f"a {guide.kind} of layer {guide.layer}", f"{name} has layers 1 to {shape.layers}"
                    )


def _check_lens(ref: Reference, shapes: Mapping[str, Shape | None]) -> None:
    guide = Guide("lens", [*PUBLISHED_SHAPE]) if ref.name.endswith(PICKLED) else _guide(Path(ref.name), "lens.trained")
    for name, shape in shapes.items():
        if guide.layer is not None or (shape and guide.size != [shape.layers, shape.heads]):
            wanted = f"a lens for {name}" + (f", which has {[shape.layers, shape.heads]}" if shape else "")
            raise InputError("lens.trained", f"a {guide.kind} of shape {guide.size}", wanted)


def _check_layers(use: Use, shape: Shape, field: str, name: str) -> None:
    try:
        candidate_layers(use.params["layers"], shape.layers, shape.tied, field)
    except InputError as error:
        raise InputError(error.field, error.found, f"{error.allowed}: {name} has {shape.layers} layers") from None


def _guide(path: Path, field: str) -> Guide:
    """The guide at `path`."""
    if path.is_dir():
        if missing := [name for name in LENS if not (path / name).is_file()]:
            raise InputError(field, f"no {missing[0]} in {path}", "a folder with a lens")
        try:
            return Guide("lens", _header(path / LENS[0])["weights"]["shape"])
        except (ValueError, TypeError, KeyError):
            raise InputError(field, f"{path / LENS[0]} holds no weights", "a safetensors file of a lens") from None
    if not path.is_file():
        raise not_found(path, field)
    try:
        header = _header(path)
        layer = json.loads(header["__metadata__"][GUIDE])["layer"]
        return Guide("classifier on hidden states", header["weights"]["shape"], int(layer))
    except (ValueError, TypeError, KeyError):
        allowed = "a file that `kdray lens guide` wrote, or the folder of a lens"
        raise InputError(field, f"{path} is no classifier on hidden states", allowed) from None


def _header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, JSON behind its length in eight bytes."""
    with path.open("rb") as file:
        return json.loads(file.read(min(int.from_bytes(file.read(8), "little"), 10**7)))
