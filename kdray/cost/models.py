"""The decoders of a grid, by configurations that are on this machine: in the store, in a folder, in the hub's cache."""

from __future__ import annotations

from pathlib import Path

from kdray.check.checks import in_hub_cache
from kdray.cost.decoder import Decoder, decoder_of
from kdray.plan.steps import Plan
from kdray.spec.folders import CONFIG, read_config
from kdray.spec.refs import parse_reference
from kdray.store import Outer, Store


def folders_of(plan: Plan, store: Store, outer: Outer) -> dict[str, Path]:
    """By role the folders of the models, as far as their configurations are on this machine."""
    found = {}
    for role, (field, model) in plan.grid.models().items():
        made = plan.models[role].untuned
        artifact = store.get(made.key) if made.id else None
        ref = parse_reference(model.model, f"{field}.model")
        folder = artifact.path if artifact else in_hub_cache(ref, outer) if ref.scheme == "hf" else Path(ref.name)
        if folder is not None and (folder / CONFIG).is_file():
            found[role] = folder
    return found


def decoders_of(plan: Plan, store: Store, outer: Outer) -> tuple[dict[str, Decoder], list[str]]:
    """By role, `student` and the teachers' names; and why others are not known, a line each."""
    found, unknown, folders = {}, [], folders_of(plan, store, outer)
    for role, (field, model) in plan.grid.models().items():
        made = plan.models[role].untuned
        artifact = store.get(made.key) if made.id else None
        if role not in folders:
            unknown.append(f"{field}.model: no configuration on this machine yet")
            continue
        decoder = decoder_of(config := read_config(folders[role], f"{field}.model"))
        if decoder is None:
            unknown.append(
                f"{field}.model: no formula for the family"
                f" {config.get('model_type', 'that its configuration does not name')}"
            )
        elif artifact or not model.drop_layers:
            found[role] = decoder
        else:
            found[role] = decoder.without(model.drop_layers[1] - model.drop_layers[0])
    return found, unknown
