"""What is not there for an encoder-decoder, whose encoder reads the prompt and whose decoder writes the response: one
line each. Which kind a model is of is read from its configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kdray.check.machine import metrics_by_field
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.errors import InputError
from kdray.spec.folders import is_encoder_decoder, read_config
from kdray.spec.grid import Grid


def check_kinds(grid: Grid, folders: Mapping[str, Path], *, by_role: bool) -> list[str]:
    """What there is to know of encoder-decoders among the models in `folders`, by role, or by name where they are only
    scored; as notes.

    Raises:
        InputError: a teacher is one, or the grid asks for something that an encoder-decoder does not have.
    """
    configs = {role: read_config(folder) for role, folder in folders.items()}
    both = {
        role: f"an encoder-decoder ({config.get('model_type')})"
        for role, config in configs.items()
        if is_encoder_decoder(config)
    }
    if not both:
        return []
    for role, kind in both.items():
        if by_role and role != "student":
            raise InputError(f"{grid.models()[role][0]}.model", kind, "a teacher is a causal language model")
    kind = next(iter(both.values()))
    _check_scoring(grid, kind)
    if not by_role:
        return []
    _check_training(grid, kind)
    return [f"the student is {kind}: its rows are padded, not packed"] if grid.train.packing else []


def _check_training(grid: Grid, kind: str) -> None:
    if grid.student.drop_layers:
        raise InputError("student.drop_layers", f"layers of {kind}", "leave it out")
    if not declared(declare.Recipe, grid.data.recipe.name).prompts:
        raise InputError(
            "data.recipe", f"'{grid.data.recipe.name}', which makes no prompts, for {kind}", "give its encoder some"
        )
    if grid.all_teachers and not grid.soft_labels.align:
        allowed = "a causal teacher shares responses with it, not prompts: write text, or position with the loss uld"
        raise InputError("soft_labels.align", f"none, and the student is {kind}", allowed)
    if grid.align:
        raise InputError("align", f"of {kind}", "citing needs a causal model: leave it out")
    if grid.train.compile:
        raise InputError("train.compile", f"true, and the student is {kind}", "leave it out")
    if not declared(declare.Engine, (engine := grid.runtime.engine.name)).encoder_decoder:
        raise InputError("runtime.engine", f"{engine}, and the student is {kind}", "use ddp")


def _check_scoring(grid: Grid, kind: str) -> None:
    if grid.lens is not None:
        allowed = "Lookback Lens is not defined for cross-attention: leave the section out"
        raise InputError("lens", f"a lens of {kind}", allowed)
    ways = {f"score.decoding.{i}": use for i, use in enumerate(grid.score.decoding)}
    for field, use in (ways | {f"score.choices.{i}": use for i, use in enumerate(grid.score.choices)}).items():
        if not declared(declare.Decoding, use.name).encoder_decoder:
            raise InputError(field, f"{use.name} of {kind}", "it is not defined for cross-attention: leave it out")
    for field, use in metrics_by_field(grid).items():
        if declared(declare.Metric, use.name).answerer:
            raise InputError(field, f"'{use.name}' by {kind}", "it asks a causal model: leave it out")
    if grid.score.engine == "vllm":
        raise InputError("score.engine", f"vllm for {kind}", "use transformers")
    if grid.score.likelihood == "shared_prefix":
        raise InputError("score.likelihood", f"shared_prefix for {kind}", "use hflm")
