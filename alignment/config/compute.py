"""Where the work is done."""

from __future__ import annotations

import os
import shlex
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from alignment.config.section import Section
from alignment.errors import ConfigError

FastCPU = Literal["auto", "off"]
COMMAND = "{command}"
"""What `compute.launch` replaces by the module to run and its arguments."""


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
    """CPU threads of torch in each process; unset leaves torch's choice. Stages that run side by
    side (`orchestration.parallel`) share them. Results are repeatable for one setting."""
    fast_cpu: FastCPU = Field(default_factory=_fast_cpu)
    """`auto`: hand-written passes for small Llamas on a CPU, wherever a moment's measurement on
    this machine shows that they pay; `off`: transformers and torch alone. Results differ by
    rounding only, so finished stages stay valid either way. What was measured is kept in the
    workspace, so that later runs give the same bits. The default is what the environment's
    ALIGN_FAST_CPU says, else `auto`."""
    processes: int = Field(default=1, ge=1)
    """Processes that share every stage that runs a model: one for each GPU, or on a CPU one for a
    core or some, which stages that run side by side (`orchestration.parallel`) share unless models
    are sharded. What is drawn and scored is one process's; training equals it up to rounding
    and the dropout of adapters, which each draws for itself. A server draws for one process, in PPO
    for all of its machine."""
    nodes: int = Field(default=1, ge=1)
    """Machines that the processes are on, as many on each. Several need `launch`, and see the
    workspace and the environment at the same paths."""
    launch: str | None = None
    """The command that starts the processes (torchrun, srun); unset starts them on this machine.
    `{command}` stands for the arguments of python or torchrun, `{nodes}` and `{per_node}` for
    numbers of machines and of processes on each. No shell reads it."""
    sharding: Literal["none", "full", "auto"] = "none"
    """`full`: weights, gradients and the optimiser's state are split over the processes (torch's
    `fully_shard`), for models that do not fit one device whole; of what only reads, reward models.
    `none`: every process holds all. `auto`: `full` in stages that do not fit otherwise, by the
    planner's count and the GPUs or main memory that are present, chosen once and kept in the
    workspace. Results differ by rounding only, so finished stages stay valid either way."""

    @model_validator(mode="after")
    def _several(self) -> Self:
        if self.sharding == "full" and self.processes == 1:
            raise ValueError("sharding: full splits a model over several processes; set processes")
        if self.processes % self.nodes:
            raise ValueError(
                f"{self.nodes} nodes cannot have equal shares of {self.processes} processes"
            )
        if self.nodes > 1 and self.launch is None:
            raise ValueError("several nodes need launch, the command that starts the processes")
        return self

    @field_validator("launch")
    @classmethod
    def _complete(cls, command: str | None) -> str | None:
        if command is None:
            return None
        try:
            words = shlex.split(command)
            for word in words:
                if word != COMMAND:
                    word.format(nodes=1, per_node=1)
        except (ValueError, LookupError) as error:
            raise ValueError(
                f"{command!r} is no command: {error}; {COMMAND} as a word of its own, "
                "{nodes} and {per_node} can be filled in, and $NAME from the environment"
            ) from None
        if COMMAND not in words:
            raise ValueError(f"{command!r} does not say where {COMMAND} goes, as a word of its own")
        return command
