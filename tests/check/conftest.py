"""The plans of `tests/plan` for the checks of what they need."""

from __future__ import annotations

from tests.plan.conftest import plan, store

__all__ = ["plan", "store"]
