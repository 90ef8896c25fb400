"""What a program computes on: GPUs by name, from their makers' data sheets, or this machine."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from alignment.errors import ConfigError
from alignment.utils.memory import main_memory

GIB = 2**30
HEADROOM = 0.1
"""Share of a GPU's or a machine's memory that must stay free."""
LIBRARIES = 700 * 2**20
"""Bytes of a process that has imported torch, transformers and trl."""
_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # of NVIDIA, of AMD, of Windows' Linux


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

    @property
    def place(self) -> Place:
        """As something to compute on."""
        return Place(str(self), self.card.memory, self.count, self.card)


@dataclass(frozen=True)
class Place:
    """What the processes of a stage compute on.

    Attributes:
        name: in words.
        memory: bytes of each GPU, or of the machine.
        count: GPUs; 0 stands for the CPU, whose memory all processes share.
        card: its figures, if they are known.
    """

    name: str
    memory: float
    count: int = 0
    card: Card | None = None

    @property
    def device(self) -> str:
        """The type of torch's device."""
        return "cuda" if self.count else "cpu"

    def room(self, processes: int, stages: int = 1) -> float:
        """Bytes that so many stages at once may take for their models, a process of each together.

        Args:
            processes: of a stage, on one machine.
        """
        usable = self.memory * (1 - HEADROOM)
        return usable if self.count else usable / processes - stages * LIBRARIES


def present(device: str) -> Place | None:
    """What this machine has, for a `compute.device`; None if it names a GPU and there is none."""
    if device != "cpu" and any(Path(driver).exists() for driver in _DRIVERS):
        import torch

        if torch.cuda.is_available():
            index = int(device.partition(":")[2] or 0)
            properties = torch.cuda.get_device_properties(index)
            count = torch.cuda.device_count()
            card = known_card(properties.name, properties.total_memory)
            name = f"{count} x {card.name if card else properties.name}"
            return Place(name, float(properties.total_memory), count, card)
    if device.startswith("cuda"):
        return None
    memory = main_memory()
    return Place(f"the CPU with {memory / GIB:.1f} GiB", float(memory))


def known_card(name: str, memory: float) -> Card | None:
    """The card of the table that a driver calls so, such as `NVIDIA A100-SXM4-80GB`."""
    words = set(re.split(r"[^A-Z0-9]+", name.upper().replace("RTX ", "RTX")))
    if {"H100", "PCIE"} <= words:  # slower than the table's
        return None
    for card in CARDS.values():
        if card.name.partition("-")[0] in words and 0.9 < memory / card.memory <= 1.01:
            return card
    return None


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
