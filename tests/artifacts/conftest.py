"""An artifact with whatever a writer puts into it, and what is said when it is damaged."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from kdray.spec import InputError
from kdray.store import Artifact, Key, Store

Make = Callable[..., Artifact]
KEY = Key("measure", "tiny", "0123456789ab")


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """`made(write, damage)`: the finished artifact of what these leave in an attempt's folder, sealed as if it were
    whole.
    """

    def make(*writers: Callable[[Path], object]) -> Artifact:
        attempt = Store(tmp_path / "store").begin(KEY, {"step": "measure", "params": {}, "inputs": {}})
        for write in writers:
            write(attempt.path)
        return attempt.seal()

    return make


def refused(path: Path, reason: str, read: Callable[[], object]) -> None:
    """Reading says which file is damaged, why, and what to do."""
    with pytest.raises(InputError) as caught:
        read()
    folder = path.parents[1]
    assert re.fullmatch(
        rf"{re.escape(str(path))}: damaged \({reason}\); remove the folder {folder} and run again", str(caught.value)
    )
