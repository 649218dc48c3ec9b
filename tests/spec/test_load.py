"""Reading a grid file."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdray.spec import InputError, load_grid


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", "folder"])
def test_a_grid_that_cannot_be_read_is_named(content: bytes | str | None, tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"^grid: .*grid\.yaml.*; give ") as caught:
        load_grid(path)
    assert "\n" not in str(caught.value)
