"""What a grid runs on and can be priced for: GPUs, what they hold and what of their peak kdray's passes reach, and the
cores of this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kdray.cost.decoder import FLOAT32
from kdray.spec.errors import InputError, did_you_mean

CORE = "CPU"  # the name of a card that is a core of this machine


@dataclass(frozen=True)
class Card:
    """One GPU, or a core. Rates are those that products of kdray's sizes reach, of a GPU about half of the data
    sheet's.
    """

    name: str
    memory: float  # bytes that a process may use
    products: float  # operations a second of bfloat16 matrix products
    bandwidth: float  # bytes a second from its own memory
    link: float  # bytes a second to the others of a node
    float32: float = 8.0  # so many times as long take products of float32, without TF32
    # Seconds that Python takes to start the kernels of a layer in one pass, where no compiler has put them together.
    launch: float = 0.85e-3  # without gradients, to answer or score
    training_launch: float = (
        1.4e-3  # under autocast and autograd, a backward pass counting as two: on an H200 1.2 to 1.8
    )
    start: float = 0.0  # seconds until a process has imported what it needs; not counted on GPUs, where work is longer
    unit: Literal["GPU", "core"] = "GPU"

    def times(self, width: int) -> float:
        """How many times as long as in bfloat16 products of numbers of `width` bytes take."""
        return self.float32 if width == FLOAT32 else 1.0


# Data sheets: dense bfloat16 989 (H100 SXM, H200), 312 (A100), 165 TFLOP/s (RTX 4090); 3.35, 4.8, 2.0 and 1.0 TB/s.
CARDS = {
    card.name: card
    for card in (
        Card("H100", 85e9, 500e12, 2.8e12, 350e9),
        Card("H200", 150e9, 500e12, 4.0e12, 350e9),
        Card("A100", 85e9, 170e12, 1.7e12, 220e9),
        Card("RTX4090", 25e9, 90e12, 0.85e12, 20e9),
    )
}


def card_of(name: str, also: Sequence[str] = ()) -> Card:
    """The card of a name, in any capitals.

    Raises:
        InputError: an unknown one; `also` would be allowed.
    """
    by_name = {known.lower(): card for known, card in CARDS.items()}
    if name.lower() not in by_name:
        raise InputError("--card", f"'{name}'", did_you_mean(name, [*CARDS, *also]))
    return by_name[name.lower()]
