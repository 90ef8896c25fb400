"""GPUs by name, from their makers' data sheets: memory, dense bfloat16 speed, memory bandwidth."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from alignment.errors import ConfigError

GIB = 2**30


@dataclass(frozen=True)
class Card:
    """A GPU: memory in bytes, dense bfloat16 operations and bytes of memory traffic a second."""

    name: str
    memory: float
    operations: float
    bandwidth: float


CARDS = {
    card.name: card
    for card in (
        Card("T4-16GB", 16 * GIB, 65e12, 0.30e12),  # float16: it has no bfloat16
        Card("RTX3090-24GB", 24 * GIB, 71e12, 0.94e12),
        Card("RTX4090-24GB", 24 * GIB, 165e12, 1.01e12),
        Card("L4-24GB", 24 * GIB, 121e12, 0.30e12),
        Card("A10-24GB", 24 * GIB, 125e12, 0.60e12),
        Card("L40S-48GB", 48 * GIB, 362e12, 0.86e12),
        Card("A100-40GB", 40 * GIB, 312e12, 1.56e12),
        Card("A100-80GB", 80 * GIB, 312e12, 2.04e12),
        Card("H100-80GB", 80 * GIB, 989e12, 3.35e12),
        Card("H200-141GB", 141 * GIB, 989e12, 4.80e12),
        Card("B200-180GB", 180 * GIB, 2250e12, 8.00e12),
    )
}


@dataclass(frozen=True)
class Hardware:
    """So many GPUs of one kind."""

    count: int
    card: Card

    def __str__(self) -> str:
        return f"{self.count} x {self.card.name}"


def parse(text: str) -> Hardware:
    """`8xH100-80GB` → hardware.

    Raises:
        ConfigError: it has another form, or the card is not in the table.
    """
    match = re.fullmatch(r"(?:(\d+)\s*x\s*)?(\S+)", text.strip(), re.IGNORECASE)
    known = {name.lower(): card for name, card in CARDS.items()}
    card = known.get(match[2].lower()) if match else None
    count = int(match[1] or 1) if match else 0
    if card is None or count < 1:
        near = difflib.get_close_matches((match[2] if match else text).upper(), CARDS, n=1)
        raise ConfigError(
            f"{text!r} names no hardware",
            where="--hardware",
            remedy=(f"did you mean {near[0]}? " if near else "")
            + f"write COUNTxCARD, such as 8xH100-80GB; cards: {', '.join(CARDS)}",
        )
    return Hardware(count, card)
