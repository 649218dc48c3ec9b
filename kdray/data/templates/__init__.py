"""One template a file: see `kdray.spec.components` for how they are found."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from kdray.data.example import Example
from kdray.spec import declare
from kdray.spec.components import load


def open_template(use: Mapping[str, Any]) -> Callable[[Example, Any], str]:
    """The template `{name, params}`, parameters that are left out at their defaults."""
    template = load(declare.Template, use["name"])
    return functools.partial(template, **use["params"]) if use["params"] else template
