"""The arguments of a stage: its part of the configuration, its inputs, and where to write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.config.program import ProgramConfig
from alignment.pipeline.node import FIRST_CHAMPION
from alignment.utils import distributed
from alignment.utils.files import atomic_write_json, read_json
from alignment.utils.metrics_log import Series
from alignment.utils.progress import Progress, SilentProgress


class ProgramView:
    """A program of which only the declared sections can be read.

    A stage's fingerprint covers the declared sections only. If the stage read another one, the
    ledger would not notice a change in it, so that is an error.
    """

    def __init__(self, program: ProgramConfig, sections: Sequence[str]):
        self._program = program
        self._sections = tuple(sections)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._sections:
            raise AttributeError(f"section {name!r} is not in this stage's READS")
        return getattr(self._program, name)


@dataclass
class StageContext:
    """Everything that one stage reads and writes; see each field."""

    version: str
    """`base`, `sft`, `rlhf-v1`, …"""
    stage: str
    """Name of the stage, for example `reward_safety`."""
    config: ProgramView
    """The sections named in the stage's READS, with the version's own settings applied."""
    options: dict[str, Any]
    """The node's options in the plan (domain, bag)."""
    inputs: dict[str, Path]
    """Committed directories of the upstream stages; read-only."""
    out: Path
    """Directory for outputs. Deterministic files only: no wall times, no absolute paths."""
    scratch: Path
    """Directory that survives a kill and is given again on resume; deleted on commit."""
    seed: int
    """Seed of this stage, derived from the program's."""
    workspace: Path
    """The workspace, for the preference store and caches."""
    progress: Progress = field(default_factory=SilentProgress)
    """Receives progress reports."""
    metrics: dict[str, float] = field(default_factory=dict)
    datasets: list[dict[str, Any]] = field(default_factory=list)

    def metric(self, **figures: float) -> None:
        """Record final figures of the stage; pass names with `/` as `metric(**{"a/b": 1.0})`."""
        for name, value in figures.items():
            self.metrics[name] = float(value)

    def dataset(self, name: str, digest: str, rows: int, role: str) -> None:
        """Record a dataset for the lineage; `role` is `training`, `evaluation`, `prompts`, …"""
        self.datasets.append({"name": name, "digest": digest, "rows": rows, "role": role})

    @property
    def first_out(self) -> Path:
        """`out` of the first of several processes, whose outputs alone are committed."""
        return self.out if distributed.is_first() else self.scratch.parent / "out"

    def inputs_of(self, group: str) -> dict[str, Path]:
        """Name → directory of the inputs that are called `group/name`, in order."""
        prefix = f"{group}/"
        return {k.removeprefix(prefix): d for k, d in self.inputs.items() if k.startswith(prefix)}

    @property
    def series(self) -> Series:
        """The stage's training curves."""
        return Series(self.out / "series.jsonl")

    def champion(self, verdict: Path | None) -> str:
        """The version recommended so far.

        A person's decision arrives as an option (`Decisions.champion_option`); otherwise `verdict`
        names it, the outputs of the promote stage of the last version that was not rejected.
        """
        if "champion" in self.options:
            return str(self.options["champion"])
        if verdict is None:
            return FIRST_CHAMPION
        return str(read_json(verdict / "decision.json")["champion"])

    def write_notes(self) -> None:
        """Write metrics and datasets beside the outputs; the runner calls it before the commit."""
        finite = {name: _json_number(value) for name, value in sorted(self.metrics.items())}
        atomic_write_json(self.out / "metrics.json", finite)
        if self.datasets:
            atomic_write_json(self.out / "datasets.json", self.datasets)


def _json_number(value: float) -> float | None:
    """JSON has no NaN: an undefined figure is null."""
    return float(f"{value:.8g}") if value == value and abs(value) != float("inf") else None
