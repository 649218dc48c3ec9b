"""One template a file: see `kdray.spec.components` for how they are found."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from kdray.data.example import Example


def open_template(use: Mapping[str, Any]) -> Callable[[Example, Any], str]:
    """The template `{name, params}`, parameters that are left out at their defaults."""
    template = getattr(importlib.import_module(f"kdray.data.templates.{use['name']}"), use["name"])
    return functools.partial(template, **use["params"]) if use["params"] else template
