"""Whether the grid's decodings and lens fit its models: layers that there are, guides of the right shape. Reads headers only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kdray.artifacts.lens import RECORD, WEIGHTS
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.decodings import candidate_layers, references
from kdray.spec.errors import InputError
from kdray.spec.folders import read_config
from kdray.spec.grid import Grid, Model, Use
from kdray.spec.lens import PICKLED, PUBLISHED_SHAPE
from kdray.spec.paths import not_found
from kdray.spec.refs import Reference, parse_reference

LENS = (WEIGHTS, RECORD)


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
            else Shape(layers, config["num_attention_heads"], config["hidden_size"], config.get("tie_word_embeddings", False))
        )
    except KeyError:
        return None


def check_shapes(grid: Grid, shapes: Mapping[str, Shape | None], *, by_role: bool) -> None:
    """Whether the grid's decodings and a lens that is there already fit its models, by role, or those that are only scored, by name.

    Raises:
        InputError: a layer that a model does not have, a file that is no guide, or a guide or lens for a model of another shape.
    """
    called = {f"the {name}" if by_role else name: shape for name, shape in shapes.items()}
    students = {"the student": shapes["student"]} if by_role else called
    _check_decodings(grid, called if "teacher" in grid.score.references else students)
    if grid.lens is not None and grid.lens.trained is not None:
        _check_lens(parse_reference(grid.lens.trained, "lens.trained"), students)


def _check_decodings(grid: Grid, shapes: Mapping[str, Shape | None]) -> None:
    for i, use in enumerate(grid.score.decoding):
        field = f"score.decoding.{i}"
        guides = [(f"{field}.{name}", Path(ref.name)) for name, ref in references(use, field).items()]
        wanted = [(where, *_guide(path, where)) for where, path in guides]
        for name, shape in shapes.items():
            if shape is None:
                continue
            if declared(declare.Decoding, use.name).layers:
                _check_layers(use, shape, f"{field}.layers", name)
            for where, kind, size in wanted:
                own = [shape.layers, shape.heads] if kind == "lens" else [shape.width]
                if size != own:
                    raise InputError(where, f"a {kind} of shape {size}", f"{name} has {own}")


def _check_lens(ref: Reference, shapes: Mapping[str, Shape | None]) -> None:
    if ref.name.endswith(PICKLED):
        kind, size = "lens", [*PUBLISHED_SHAPE]
    else:
        kind, size = _guide(Path(ref.name), "lens.trained")
    for name, shape in shapes.items():
        if kind != "lens" or (shape and size != [shape.layers, shape.heads]):
            wanted = f"a lens for {name}" + (f", which has {[shape.layers, shape.heads]}" if shape else "")
            raise InputError("lens.trained", f"a {kind} of shape {size}", wanted)


def _check_layers(use: Use, shape: Shape, field: str, name: str) -> None:
    try:
        candidate_layers(use.params["layers"], shape.layers, shape.tied, field)
    except InputError as error:
        raise InputError(error.field, error.found, f"{error.allowed}: {name} has {shape.layers} layers") from None


def _guide(path: Path, field: str) -> tuple[str, list[int]]:
    """What kind of guide is at `path`, and the shape of its weights."""
    if path.is_dir():
        if missing := [name for name in LENS if not (path / name).is_file()]:
            raise InputError(field, f"no {missing[0]} in {path}", "a folder with a lens")
        return "lens", _weights(path / LENS[0], field)
    if not path.is_file():
        raise not_found(path, field)
    return "classifier on hidden states", _weights(path, field)


def _weights(path: Path, field: str) -> list[int]:
    """The shape of the tensor `weights` in a safetensors file, whose header is JSON behind its length in eight bytes."""
    with path.open("rb") as file:
        try:
            header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), 10**7)))
            return header["weights"]["shape"]
        except (ValueError, TypeError, KeyError):
            raise InputError(field, f"{path} holds no weights", "a safetensors file of a lens or a classifier") from None
