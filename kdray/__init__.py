"""kdray: does distilling a language model from a teacher make it hallucinate less, and at which weight?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdray.report.frames import Scores

__version__ = "0.1.0"


def results(path: str | Path) -> Scores:
    """The scores of the grid in a file, or of all that is in a store's folder: `.frame()`, and `.items()` item by item.

    Raises:
        InputError: the grid is wrong, or the folder is no store.
    """
    from kdray.report.frames import Scores  # here, so that `import kdray` loads nothing else

    return Scores(path)
