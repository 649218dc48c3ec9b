"""Lists of concepts as files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kdray.curate.metadata import write_entries


def test_a_list_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def cut_off() -> Iterator[tuple[str, str, str]]:
        yield "cat", "en", "words"
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_entries(tmp_path / "metadata.jsonl", cut_off())
    assert not (tmp_path / "metadata.jsonl").exists()
