"""GPUs whose prices in time can be told: what they hold, and what of their peak kdray's passes reach."""

from __future__ import annotations

from dataclasses import dataclass

from kdray.spec.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Card:
    """One GPU. Rates are those that products of kdray's sizes reach, about half of the data sheet's."""

    name: str
    memory: float  # bytes that a process may use
    products: float  # operations a second of bfloat16 matrix products
    bandwidth: float  # bytes a second from its own memory
    link: float  # bytes a second to the other GPUs of a node


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


def card_of(name: str) -> Card:
    """The card of a name, in any capitals.

    Raises:
        InputError: an unknown one.
    """
    by_name = {known.lower(): card for known, card in CARDS.items()}
    if name.lower() not in by_name:
        raise InputError("--card", f"'{name}'", did_you_mean(name, CARDS))
    return by_name[name.lower()]
