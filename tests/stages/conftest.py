"""Ray for grids that run in the test's own process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """One local Ray for all runs of a module, of which each would start and stop its own: that takes longer than some of them."""
    import ray

    init, shutdown = ray.init, ray.shutdown
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "init", lambda **options: ray.is_initialized() or init(**options))
        patch.setattr(ray, "shutdown", lambda: None)
        yield
    shutdown()
