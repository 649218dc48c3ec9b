"""What is installed: docs/licences.md has the licence of every package that kdray asks for, written by
`python -m tests.test_licences`, and cluster/requirements.lock the hashes of the tested versions.
"""

from __future__ import annotations

import importlib.metadata
import re
import tomllib

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "licences.md"
UNTESTED = ("vllm", "ray")  # of extras that the tested environment has not
HEAD = """# Licences

kdray is under Apache-2.0. This is what it asks for itself, with the licence in the metadata of the tested version.
What these ask for in turn is in `cluster/requirements.lock`; what a model or a data set allows says its own page.

<!-- written by `python -m tests.test_licences` -->

"""


def direct() -> dict[str, list[str]]:
    """The names of packages by what asks for them: `kdray` itself, or one of its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {"kdray": project["dependencies"], **project["optional-dependencies"]}
    return {
        by: sorted({re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0] for line in lines}, key=str.lower)
        for by, lines in asked.items()
    }


def licence(package: str) -> str:
    """What a package's metadata say: an SPDX expression, else its classifiers, else the first line of free text."""
    metadata = importlib.metadata.metadata(package)
    if expression := metadata.get("License-Expression"):
        return expression
    lines = metadata.get_all("Classifier") or ()
    classified = [line.split(" :: ")[-1] for line in lines if line.startswith("License :: OSI Approved ::")]
    return ", ".join(classified) or (metadata.get("License") or "?").strip().splitlines()[0]


def page() -> str:
    rows = {
        name: (by, licence(name))
        for by, names in reversed(direct().items())  # what an extra asks for beside kdray itself is kdray's
        for name in names
        if by == "kdray" or name not in UNTESTED
    }
    table = [f"| {name} | {by} | {said} |" for name, (by, said) in sorted(rows.items(), key=lambda row: row[0].lower())]
    return HEAD + "\n".join(["| package | asked for by | licence |", "| --- | --- | --- |", *table]) + "\n"


def test_the_page_has_every_package_that_is_asked_for_and_its_licence() -> None:
    assert PAGE.read_text() == page(), "`python -m tests.test_licences` writes it anew"
    assert "| ? |" not in page(), "a package names no licence"


def test_the_lock_has_hashes_of_exactly_the_tested_versions() -> None:
    lock = (ROOT / "cluster" / "requirements.lock").read_text()
    entries = re.findall(
        r"^([\w.-]+)(?:\[[\w, -]+\])?==([^\s;]+)([^\\\n]*)\\\n((?:    --hash=sha256:[0-9a-f]{64}.*\n)+)", lock, re.M
    )
    assert len(entries) == len(re.findall(r"^[\w.-]+.*==", lock, re.M)), "an entry without a hash"
    locked = {plain(name): version for name, version, _, _ in entries}
    pinned = dict(line.split("==") for line in (ROOT / "cluster" / "constraints.txt").read_text().split())
    tested = {plain(name): version for name, version in pinned.items()}
    assert {name: locked[name] for name in tested} == tested
    elsewhere = {plain(name) for name, _, marker, _ in entries if "sys_platform" in marker}  # CUDA's parts, Windows
    assert set(locked) - set(tested) <= elsewhere
    assert {plain(name) for by, names in direct().items() if by in ("kdray", "dev") for name in names} <= set(locked)


def plain(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    PAGE.write_text(page())
