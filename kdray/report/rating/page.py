"""The page on which a person rates answers. It asks no network, keeps what is done in the browser, and saves a csv.

The one script that may run in it is its own, known by its hash: an answer that holds a script stays a text.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from kdray.report.page.page import render, source
from kdray.report.rating.sheet import Key, RatedPair
from kdray.store import io

PAGE, SCRIPT = "rating.html", "rating.js"


def write_rating_page(key: Key, questions: Sequence[RatedPair], folder: Path) -> Path:
    """Write `rating.html` into a folder and return its path."""
    script = source(SCRIPT)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = render(PAGE, sheet=key.sheet, questions=questions, script=Markup(script), script_hash=f"sha256-{digest}")
    io.put(folder / PAGE, page.encode(), durable=False)
    return folder / PAGE
