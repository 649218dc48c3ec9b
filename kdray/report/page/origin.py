"""Where a report's numbers are from: versions, machines, the state of kdray's source, inputs by their content, ids of
all steps.
"""

from __future__ import annotations

import datetime
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

import kdray
from kdray.plan.steps import Step
from kdray.report.page.evidence import Evidence
from kdray.report.page.states import artifacts_of
from kdray.spec.grid import Grid
from kdray.spec.refs import Reference
from kdray.spec.uses import entries_by_field
from kdray.store import Artifact, Outer, Store
from kdray.store.locks import DONE

PACKAGES = ("torch", "transformers", "ray", "lm-eval", "peft", "mlflow", "scikit-learn")
PASSWORD = re.compile(r"(//[^/\s:@]*):[^/\s@]*@")  # of an address, behind its user
FACTS = ("kdray", "torch", "device", "engine", "workers", "threads", "host")  # what steps note of how they ran


@dataclass(frozen=True)
class Origin:
    """Everything that another person needs to get the same numbers."""

    ran: list[tuple[str, str]]  # what the steps noted, each with all values that occur
    here: list[tuple[str, str]]  # this machine, which wrote the report
    inputs: list[tuple[str, str]]  # what was taken from outside, with commit or sha256
    ids: list[tuple[str, str, str, str]]  # kind, name, id and state of each step
    grid: str  # the whole grid as it was read
    until: str  # when the newest of it was finished


def origin_of(evidence: Evidence, store: Store) -> Origin:
    found = artifacts_of(evidence, store)
    return Origin(
        ran=_noted([artifact for _, artifact in found if artifact]),
        here=_here(evidence),
        inputs=list(_inputs((step for step, _ in found), Outer(store.root).locked())),
        ids=[(step.kind, step.slug, step.id or "", "done" if artifact else "not done") for step, artifact in found],
        grid=written(evidence.grid),
        until=_newest([artifact for _, artifact in found if artifact]),
    )


def _noted(artifacts: Iterable[Artifact]) -> list[tuple[str, str]]:
    values: dict[str, dict[str, None]] = {name: {} for name in FACTS}
    for artifact in artifacts:
        for name in FACTS:
            if (value := artifact.facts.get(name)) is not None:
                values[name][_said(value)] = None
    return [(name, ", ".join(sorted(found))) for name, found in values.items() if found]


def _said(value: Any) -> str:
    """A fact in a few words: an engine is {name, params}."""
    if isinstance(value, dict) and "name" in value:
        params = ", ".join(f"{key}: {each}" for key, each in (value.get("params") or {}).items())
        return f"{value['name']} ({params})" if params else str(value["name"])
    return str(value)


def _here(evidence: Evidence) -> list[tuple[str, str]]:
    others = {entry.distribution.name: entry.distribution.version for entry in entries_by_field(evidence.grid).values()}
    versions = {name: version for name in PACKAGES if (version := _version(name))} | others
    return [
        ("kdray", f"{kdray.__version__}{f', {state}' if (state := source_state(Path(kdray.__file__).parent)) else ''}"),
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *((name, str(version)) for name, version in versions.items()),
    ]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def source_state(folder: Path) -> str:
    """The commit of the source in a folder, and whether it was changed since; nothing where it is no checkout, or git
    is not there.
    """
    try:
        commit, changed = (
            subprocess.run(
                ["git", "-C", str(folder), *asked], capture_output=True, text=True, timeout=10, check=True
            ).stdout.strip()
            for asked in (
                ["rev-parse", "--short=12", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no", "--", str(folder)],
            )
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"git {commit}{', with changes that are not committed' if changed else ''}"


def written(grid: Grid) -> str:
    """A grid as a file that makes the same steps: all that is not at its default, parameters of components filled
    in. Passwords in addresses are left out.
    """
    text = yaml.safe_dump(
        _flat(grid.model_dump(mode="json", exclude_defaults=True)), sort_keys=False, allow_unicode=True, width=100
    )
    return PASSWORD.sub(r"\1:***@", text)


def _flat(value: Any) -> Any:
    """What a grid holds, with components as files write them: {name, params} is {name, and each parameter}."""
    if isinstance(value, dict):
        if value.keys() == {"name", "params"}:
            value = {"name": value["name"], **value["params"]}
        return {name: _flat(each) for name, each in value.items()}
    return [_flat(each) for each in value] if isinstance(value, list) else value


def _inputs(steps: Iterable[Step], locked: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """What steps take from outside; what the grid does not pin with what it was resolved to."""
    seen: set[Reference] = set()
    for step in steps:
        for reference in step.references:
            if reference not in seen:
                seen.add(reference)
                identity = None if reference.pinned else locked.get(str(reference))
                yield f"{step.kind} {step.slug}", str(reference.pin(identity) if identity else reference)


def _newest(artifacts: Iterable[Artifact]) -> str:
    times = [(artifact.folder / DONE).stat().st_mtime for artifact in artifacts]
    if not times:
        return ""
    return datetime.datetime.fromtimestamp(max(times), datetime.UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0")
