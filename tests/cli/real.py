"""The real command, as the shell runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def kdray(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`kdray ARGUMENTS` in a process of its own."""
    command = [str(Path(sys.executable).with_name("kdray")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
