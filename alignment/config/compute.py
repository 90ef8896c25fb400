"""Where the work is done."""

from __future__ import annotations

import os
from typing import Literal, Self

from pydantic import Field, model_validator

from alignment.config.section import Section
from alignment.errors import ConfigError

FastCPU = Literal["auto", "off"]


def _fast_cpu() -> FastCPU:
    """The default of `fast_cpu`; $ALIGN_FAST_CPU changes it for whole test suites."""
    match os.environ.get("ALIGN_FAST_CPU", "auto"):
        case "auto":
            return "auto"
        case "off":
            return "off"
        case other:
            raise ConfigError(
                f"{other!r} is neither auto nor off", where="the environment: ALIGN_FAST_CPU"
            )


class ComputeConfig(Section):
    """Device, number format and number of processes of every stage that runs a model."""

    device: str = "auto"
    """`auto` (first GPU, else CPU), `cpu`, `cuda`, `cuda:1`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format that models compute in. What learns has float32 master weights either way, and
    versions are stored in float32."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of torch in each process; unset leaves torch's choice. Results are repeatable for
    one setting."""
    fast_cpu: FastCPU = Field(default_factory=_fast_cpu)
    """`auto`: hand-written passes for small Llamas on a CPU, wherever a moment's measurement on
    this machine shows that they pay; `off`: transformers and torch alone. Results differ by
    rounding only, so finished stages stay valid either way. What was measured is kept in the
    workspace, so that later runs give the same bits. The default is what the environment's
    ALIGN_FAST_CPU says, else `auto`."""
    processes: int = Field(default=1, ge=1)
    """Processes of this machine that share every stage that runs a model: one for each GPU, or
    several on a CPU with many cores. What is drawn and scored is one process's, training equals it
    up to rounding. A server or an endpoint draws for one process."""
    sharding: Literal["none", "full"] = "none"
    """`full`: weights, gradients and the optimiser's state are split over the processes (torch's
    `fully_shard`), for models that do not fit one device whole; of what only reads, reward models.
    `none`: every process holds all."""

    @model_validator(mode="after")
    def _several(self) -> Self:
        if self.sharding == "full" and self.processes == 1:
            raise ValueError("sharding: full splits a model over several processes; set processes")
        return self
