"""Paths are paths: what would be one on another system, in a shell or in an object store makes no folder of that name
here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kdray.spec.errors import InputError
from kdray.spec.paths import local_path, not_found, tracking_address
from kdray.spec.refs import parse_reference

NO_PATHS = {
    "": "empty",
    "  ": "empty",
    "s3://bucket/x": "is an address",
    "s3:/bucket/x": "is an address",
    "gs://bucket": "is an address",
    "hdfs://name/x": "is an address",
    "az://x": "is an address",
    "abfss://c@a.dfs.core.windows.net/x": "is an address",
    "dbfs:/x": "is an address",
    "https://host/x": "is an address",
    "host:/export/x": "is an address",
    "file:x": "write the path alone, without file:",
    "file:///x": "write the path alone, without file:",
    r"C:\x": "is a path of Windows",
    "C:/x": "is a path of Windows",
    r"\\host\x": "is a path of Windows",
    "$HOME/x": "$HOME is not expanded here; write the path out",
    "/data/${USER}/x": "${USER} is not expanded here",
    "/data/run_$SLURM_JOB_ID": "$SLURM_JOB_ID is not expanded here",
    "a\0b": "cannot be printed",
    "runs/x\n": "cannot be printed",
    ".git/x": "lies in a folder of git's",
    "/a/.git/x": "lies in a folder of git's",
    "~nosuchuser/x": "nobody of that name",
}


@pytest.mark.parametrize(("text", "said"), NO_PATHS.items())
def test_what_is_no_path_is_refused_by_field(text: str, said: str) -> None:
    with pytest.raises(InputError, match=r"^runtime\.store: ") as caught:
        local_path(text, "runtime.store", seen_by_all=True)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["x", "runs/x", "/x", "../x", "./s3:x", "runs/2024-01-01T10:00", "a b", "über", "x.git", "~x/../x", "5$"]
)
def test_paths_are_left_as_they_are(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path.replace("~x", "/home/x"))
    assert local_path(text) == text.replace("~x", "/home/x")


def test_the_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert local_path("~/x") == "/home/ada/x"
    assert parse_reference("file:~/x").name == "/home/ada/x"


def test_a_reference_to_a_file_may_be_written_as_an_url() -> None:
    assert parse_reference("file:///data/x.jsonl").name == "/data/x.jsonl"
    assert parse_reference("file:/data/x.jsonl") == parse_reference("file:///data/x.jsonl")
    assert parse_reference("file:a:b.jsonl").name == "a:b.jsonl"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file:", "names no path"),
        ("file: ", "names no path"),
        ("file:s3://bucket/x", "holds another address"),
        ("file:dbfs:/x", "holds another address"),
        ("file:file:///x", "holds another address"),
        ("file://data/x.jsonl", "names the host 'data'; write file:path, or file:///path"),
    ],
)
def test_a_reference_to_no_file_of_this_machine_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=r"^data\.source: ") as caught:
        parse_reference(text, "data.source")
    assert said in str(caught.value)


def test_what_is_not_there_is_said_with_the_variable_that_nobody_expanded() -> None:
    assert str(not_found(Path("x"), "model")) == f"model: no file or folder x; paths are read from {Path.cwd()}"
    assert str(not_found(Path("$HOME/x"), "model", "file")).startswith("model: no file $HOME/x; paths are read from")
    assert str(not_found(Path("$HOME/x"), "model")).endswith(", and $HOME is not expanded")


@pytest.mark.parametrize(
    "uri",
    ["http://u:p$w@host:5000", "http://host/$x", "postgresql://u:p$w@host/db", "sqlite:////a~/m.db", "databricks"],
)
def test_addresses_of_mlflow_are_left_as_they_are(uri: str) -> None:
    assert tracking_address(uri) == uri


def test_a_password_in_a_refused_address_is_not_shown() -> None:
    with pytest.raises(InputError, match=r"\$DB is not expanded") as caught:
        tracking_address("postgresql://ada:secret@host/$DB", "runtime.mlflow")
    assert "secret" not in str(caught.value)
