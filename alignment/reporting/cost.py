"""What stages and versions cost: time, tokens, memory, energy, CO₂.

Energy is device power × overhead × time and CO₂ is energy × carbon intensity, as Llama 2 §2.2.1
reckons it: an estimate from stated numbers (`cost` in the configuration), not a measurement. Times
are those of the attempts whose outputs count; what failed attempts took stands in their own
records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from alignment.config.tracking import CostConfig
from alignment.utils.files import MANIFEST, read_json

TITLES = (
    ("seconds", "seconds"),
    ("tokens_generated", "tokens\ngenerated"),
    ("tokens_trained", "tokens\ntrained"),
    ("peak_memory_mb", "peak\nmemory, MB"),
    ("energy_wh", "energy,\nWh"),
    ("co2_g", "CO₂, g"),
)
"""Figure → title, in the order of every table."""


@dataclass(frozen=True)
class Cost:
    """Price of a stage, or of several together."""

    seconds: float = 0.0
    tokens_generated: float = 0.0
    """Sampled by a policy."""
    tokens_trained: float = 0.0
    """With a loss on them: answer tokens of fine-tuning and PPO, both sides of comparisons, all of
    a corpus; each pass counts."""
    peak_memory_mb: float = 0.0
    """The largest of all, not the sum: MiB of resident memory, and of GPU memory where used."""
    energy_wh: float = 0.0
    co2_g: float = 0.0

    def figures(self) -> dict[str, float]:
        """Name → value, six significant digits."""
        return {name: float(f"{value:.6g}") for name, value in asdict(self).items()}

    def cells(self) -> list[str]:
        """For people, in the order of `TITLES`."""
        return [number(getattr(self, name)) for name, _ in TITLES]


def stage_cost(
    seconds: float, peak_memory_mb: float, metrics: Mapping[str, float | None], config: CostConfig
) -> Cost:
    """The cost of one stage from its manifest.

    >>> stage_cost(3600, 100, {"tokens_trained": 5}, CostConfig(device_watts=400)).energy_wh
    400.0
    """
    energy = config.device_watts * config.overhead * seconds / 3600
    return Cost(
        seconds=seconds,
        tokens_generated=metrics.get("tokens_generated") or 0.0,
        tokens_trained=metrics.get("tokens_trained") or 0.0,
        peak_memory_mb=peak_memory_mb,
        energy_wh=energy,
        co2_g=energy / 1000 * config.co2_grams_per_kwh,
    )


def together(costs: Iterable[Cost]) -> Cost:
    """The sum of several; of memory the largest."""
    rows = [asdict(cost) for cost in costs]
    total = {name: sum(row[name] for row in rows) for name, _ in TITLES}
    total["peak_memory_mb"] = max((row["peak_memory_mb"] for row in rows), default=0.0)
    return Cost(**total)


def version_costs(stages: Mapping[str, Path], config: CostConfig) -> dict[str, Cost]:
    """Stage → cost, from the manifests in the committed directories of one version."""
    costs = {}
    for stage, directory in stages.items():
        path = directory / MANIFEST
        if path.is_file():
            manifest = read_json(path)
            costs[stage] = stage_cost(
                manifest["seconds"], manifest["peak_memory_mb"], manifest.get("metrics", {}), config
            )
    return costs


def basis(config: CostConfig) -> str:
    """What energy and CO₂ were worked out from, in words."""
    return (
        f"Energy and CO₂ are estimates: {config.device_watts:g} W × {config.overhead:g} × time, "
        f"{config.co2_grams_per_kwh:g} g CO₂ per kWh (`cost` in the configuration)."
    )


def number(value: float) -> str:
    """Three digits or thousands: 0.0123, 4.56, 789, 12,345."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
