"""The webhook that is told of a run: only the name of its variable is ever shown, as what it holds is a secret."""

from __future__ import annotations

import os
import urllib.parse

from kdray.spec.errors import InputError

FIELD = "runtime.notify"


def webhook(name: str) -> str:
    """The URL in the variable `name` of the environment.

    Raises:
        InputError: it is not set, or holds no URL.
    """
    url = os.environ.get(name, "").strip()
    if not url:
        raise InputError(FIELD, f"no variable {name} in the environment", "export it with the webhook's URL")
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and url.isascii()
    except ValueError:
        usable = False
    if not usable:
        raise InputError(FIELD, f"the variable {name} holds no URL", "export it as https://host/path")
    return url
