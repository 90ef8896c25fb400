"""Where the work is done."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from alignment.config.section import Section


class ComputeConfig(Section):
    """Device, number format and number of processes of every stage that runs a model."""

    device: str = "auto"
    """`auto` (first GPU, else CPU), `cpu`, `cuda`, `cuda:1`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of weights and activations."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of torch in each process; unset leaves torch's choice. Results are repeatable for
    one setting."""
    processes: int = Field(default=1, ge=1)
    """Processes of this machine that share reward training, fine-tuning and PPO: one for each GPU,
    or several on a CPU with many cores. Losses equal one process's up to rounding."""
