"""What a grid needs of the machines that do its work, beyond kdray itself: packages, data, an endpoint, GPUs.

Without a cluster that is this machine, and it is looked at here; nothing heavy is loaded for it. With a cluster only
its nodes can tell: `kdray check` notes what they must have, and a run looks at each of them before any work.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import importlib.util
import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from kdray.spec import declare
from kdray.spec.components import component
from kdray.spec.errors import InputError, did_you_mean
from kdray.spec.grid import Grid
from kdray.spec.metrics import metrics_of
from kdray.spec.points import expand
from kdray.spec.sections.base import Use
from kdray.spec.sections.training import Optimiser
from kdray.spec.uses import entries_by_field

CLUSTER, SUBMITTED = (
    "RAY_ADDRESS",
    "RAY_API_SERVER_ADDRESS",
)  # Ray's own names for where a run connects to, or a job is sent
ENDPOINT, ENDPOINT_SECONDS = "OPENAI_BASE_URL", 10
# The device files of NVIDIA's, AMD's and Intel's GPUs, and of those that Windows lends to its Linux.
GPUS = ("nvidia[0-9]*", "kfd", "dri/renderD*", "dxg")


@dataclass(frozen=True)
class Need:
    """Something that every worker must have, the field of the grid that needs it, and how to get it or do without."""

    field: str
    kind: Literal["package", "distribution", "nltk data", "variable", "endpoint"]
    name: str  # of a distribution with its version, `name==1.0`
    remedy: str

    def lack(self) -> str:
        """What is wrong with it on this machine; empty if nothing is."""
        match self.kind:
            case "package":
                return "" if importlib.util.find_spec(self.name) else f"the package '{self.name}' is not installed"
            case "distribution":
                return _not_installed(*self.name.split("=="))
            case "nltk data":
                return "" if nltk_has(self.name) else f"nltk's data '{self.name}' are not installed"
            case "variable":
                return "" if os.environ.get(self.name) else f"{self.name} is not set"
            case "endpoint":
                return _unanswered(os.environ.get(self.name, ""))


def needs_of(grid: Grid, *, trains: bool) -> list[Need]:
    """What the workers of a grid need; one that does not train only scores models."""
    needs = []
    for field, section in _trainings(grid).items() if trains else ():
        if section.method == "qlora":
            needs.append(Need(f"{field}.method", "package", "bitsandbytes", "pip install 'kdray[qlora]', or use lora"))
    for field, section in {"soft_labels": grid.soft_labels, "augment": grid.augment}.items() if trains else ():
        if section.quantise:
            needs.append(
                Need(f"{field}.quantise", "package", "bitsandbytes", "pip install 'kdray[qlora]', or leave it out")
            )
    if trains and any(point.rows != "all" for point in expand(grid)):
        several = grid.data.curate is not None and len(grid.data.curate.languages) > 1
        needs += curating_needs("data.curate.languages", several=several)
    for field in _vllm(grid, trains):
        needs.append(Need(field, "package", "vllm", "pip install 'kdray[vllm]', or use transformers"))
    for field, entry in entries_by_field(grid).items():
        named = f"{entry.distribution.name}=={entry.distribution.version}"
        needs.append(Need(field, "distribution", named, f"pip install '{named}' there: ids know which version works"))
    return needs + needs_of_metrics(metrics_by_field(grid))


def curating_needs(field: str, *, several: bool) -> list[Need]:
    """What finding concepts takes; `several`: in texts of more languages than one, which `field` names."""
    needs = [Need(field, "package", "ahocorasick_rs", "pip install 'kdray[curate]'")]
    if several:
        needs.append(Need(field, "package", "py3langid", "pip install 'kdray[curate]', or name one language"))
    return needs


def metrics_by_field(grid: Grid) -> dict[str, Use]:
    """All metrics that are taken of answers, by field."""
    own = {"lens.own.metric": grid.lens.own.metric} if grid.lens and grid.lens.own else {}
    return {
        f"score.metrics.{use.name}": use for task in grid.score.tasks for use in metrics_of(task, grid.score.metrics)
    } | own


def needs_of_metrics(uses: Mapping[str, Use]) -> list[Need]:
    """What metrics, by field, need beside answers and models: packages, nltk's data, an endpoint."""
    needs = []
    for field, use in uses.items():
        wants = component(declare.Metric, use.name, field).declared
        needs += [Need(field, "package", package, "pip install 'kdray[metrics]'") for package in wants.requires]
        for parameter, data in wants.nltk_data.items():
            if use.params[parameter]:
                remedy = f"python -m nltk.downloader {PurePosixPath(data).name}, or set {parameter}: false"
                needs.append(Need(field, "nltk data", data, remedy))
        if wants.endpoint:
            remedy = f"export {ENDPOINT}=http://host:port/v1 (and OPENAI_API_KEY)"
            needs.append(Need(field, "variable", ENDPOINT, remedy))
            needs.append(Need(ENDPOINT, "endpoint", ENDPOINT, "start the judge's server, or correct it"))
    return needs


def require(needs: Iterable[Need], *, offline: bool) -> None:
    """Whether this machine has all of it; `offline`: but for what the network would tell.

    Raises:
        InputError: it has not.
    """
    for need in needs:
        if not (offline and need.kind == "endpoint") and (lack := need.lack()):
            raise InputError(need.field, lack, need.remedy)


def check_machine(grid: Grid, *, trains: bool, offline: bool, elsewhere: bool) -> list[str]:
    """Whether a grid can be run by this machine or, `elsewhere`, by a cluster; what must be seen to there, as notes.

    Raises:
        InputError: it cannot.
    """
    _check_devices(grid, trains, elsewhere)
    needs, named = needs_of(grid, trains=trains), _check_accelerator(grid.runtime.accelerator)
    named += idle_workers(grid) if trains else []
    if not elsewhere:
        require(needs, offline=offline)
        return named
    lacking = {need.field: lack for need in needs if need.kind != "endpoint" and (lack := need.lack())}
    return named + [f"{field}: {lack} here; every node of the cluster must have it" for field, lack in lacking.items()]


def runs_elsewhere() -> bool:
    """Whether a cluster does the work of `kdray run`."""
    return os.environ.get(CLUSTER, "") not in ("", "local")


def require_gpus(grid: Grid, found: str, *, trains: bool) -> None:
    """Raise InputError, saying what was `found` instead, if a field of the grid can do nothing without a GPU."""
    for field in _vllm(grid, trains):
        raise InputError(field, f"vllm {found}", "use transformers")
    for field, section in _trainings(grid).items() if trains else ():
        if section.compile:
            raise InputError(f"{field}.compile", f"true {found}", "on a CPU it does not pay: leave it out")


def _check_devices(grid: Grid, trains: bool, elsewhere: bool) -> None:
    runtime = grid.runtime
    if runtime.device == "cpu":
        require_gpus(grid, "with runtime.device cpu", trains=trains)
    elif not elsewhere and not has_gpu():
        allowed = f"leave it out, or set {CLUSTER} (to submit it, {SUBMITTED}) to a cluster with GPUs"
        if runtime.device == "gpu":
            raise InputError("runtime.device", "gpu, but this machine has none", allowed)
        if runtime.accelerator:
            raise InputError("runtime.accelerator", f"{runtime.accelerator}, but this machine has no GPU", allowed)
        require_gpus(grid, "without a GPU", trains=trains)


def idle_workers(grid: Grid) -> list[str]:
    """A note where a step has fewer sequences than a point has workers; `auto` takes one worker, never idle."""
    workers, batch = grid.runtime.workers, min(point.batch for point in expand(grid))
    if workers == "auto" or batch >= workers:
        return []
    return [f"runtime.workers: {workers} share batches of {batch}: {workers - batch} of them do nothing there but wait"]


def _check_accelerator(name: str | None) -> list[str]:
    """A note if Ray's list has no such type of GPU: it may still be what somebody called his nodes."""
    known = ray_accelerators()
    if not name or name in known:
        return []
    advice = f"{did_you_mean(name.upper(), known)}; `ray status` shows a cluster's own"
    return [f"runtime.accelerator: '{name}' is not in Ray's list; {advice}"]


def ray_accelerators() -> list[str]:
    """The types of GPU that Ray has a name for, from the text of its list: to import it takes a second."""
    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(
        (Path(spec.origin).parent / "util" / "accelerators" / "accelerators.py").read_text(encoding="utf-8")
    )
    values = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    return [value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]


def has_gpu() -> bool:
    """Whether this machine shows processes a GPU; where it only seems so, the run itself finds out."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") != "" and any(next(Path("/dev").glob(name), None) for name in GPUS)


def _trainings(grid: Grid) -> Mapping[str, Optimiser]:
    """All sections that say how something is trained, by field."""
    where = {name: field for name, (field, _) in grid.models().items()}
    return {"train": grid.train} | {f"{where[name]}.tune": t.tune for name, t in grid.all_teachers.items() if t.tune}


def _vllm(grid: Grid, trains: bool) -> list[str]:
    """The fields that ask for answers by vLLM."""
    engines = {"score.engine": grid.score.engine} | ({"augment.engine": grid.augment.engine} if trains else {})
    return [field for field, engine in engines.items() if engine == "vllm"]


def _not_installed(name: str, version: str) -> str:
    """What is there instead of a distribution of this version; empty if it is there itself."""
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name} {version} is not installed"
    return "" if found == version else f"{name} is installed as {found}, not as {version}"


def nltk_has(data: str) -> bool:
    if importlib.util.find_spec("nltk") is None:
        return False
    import nltk

    try:
        nltk.data.find(data)
    except LookupError:
        with contextlib.suppress(LookupError):
            nltk.data.find(f"{data}.zip")
            return True
        return False
    return True


def _unanswered(url: str) -> str:
    """Why nothing that speaks HTTP listens there, empty if it does; the address may hold a password and is not
    shown.
    """
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url.rstrip('/')}/models"), timeout=ENDPOINT_SECONDS):
            return ""
    except urllib.error.HTTPError:
        return ""  # it answers: whether it knows us is seen with the first question
    except (OSError, ValueError) as error:
        return f"no endpoint answers there ({type(getattr(error, 'reason', error)).__name__})"
