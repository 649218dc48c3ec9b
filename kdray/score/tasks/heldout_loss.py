"""Cross-entropy on the held-out rows of the grid's own data, and KL divergence from the teacher, in nats a token."""

from __future__ import annotations

from pydantic import PositiveInt

from kdray.spec import declare

DECLARED = declare.HeldoutTask(
    version=1,
    short={"ce": "held_ce", "kl": "held_kl"},
    lower_is_better=("ce", "kl"),
)


def heldout_loss(*, limit: PositiveInt | None = None) -> None:
    """`limit`: only so many held-out rows."""
