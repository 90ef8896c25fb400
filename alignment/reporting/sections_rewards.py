"""Section of the report on reward models."""

from __future__ import annotations

from alignment.evaluation.responses import AXES
from alignment.reporting import html, plots
from alignment.reporting.comparison import Comparison, Stages
from alignment.reporting.origin import batches
from alignment.reporting.sections import versions_with
from alignment.utils.files import read_json

STRENGTHS = ("significantly", "better", "slightly", "negligibly")
Curve = list[tuple[float, float]]


def reward_accuracy(stages: Stages, _found: Comparison) -> str | None:
    """Accuracy on held-out comparisons by strength, over the versions (Llama 2, Table 8), and of
    each version's model on each batch (Fig 6: how it grows as batches come in)."""
    parts = []
    for axis in AXES:
        names = [
            name
            for name in versions_with(stages, f"reward_{axis}")
            if (stages[name][f"reward_{axis}"] / "evaluation.json").is_file()
        ]
        if not names:
            continue
        measured = {
            name: read_json(stages[name][f"reward_{axis}"] / "evaluation.json") for name in names
        }
        ticks = [plots.short(name) for name in names]
        by_strength: dict[str, Curve] = {}
        by_batch: dict[str, Curve] = {}
        came_with = {batch.id: plots.short(batch.version) for batch in batches(stages)}
        for place, figures in enumerate(measured.values()):
            cells = figures["by_strength"][axis]
            for strength in ("all", *STRENGTHS):
                value = cells.get(strength, {}).get("accuracy")
                if value is not None:
                    by_strength.setdefault(strength, []).append((place, value))
            for batch, strengths in figures.get("by_batch", {}).items():
                value = strengths.get("all", {}).get("accuracy")
                if value is not None:
                    name = f"batch of {came_with.get(batch, batch)}"
                    by_batch.setdefault(name, []).append((place, value))
        if len(by_batch) == 1:
            by_batch = {}  # the curve "all" once more
        for curves, shown in ((by_strength, "by strength"), (by_batch, "by batch")):
            if curves:
                picture = plots.lines(
                    curves,
                    title=f"{axis} reward model: accuracy {shown}",
                    x="reward model of version",
                    y="held-out comparisons ranked right, %",
                    ticks=ticks,
                    percent=True,
                )
                parts.append(html.image(picture, f"{axis} reward models: accuracy {shown}"))
    if not parts:
        return None
    said = (
        "All held-out comparisons so far, by how much better annotators found the better answer "
        "(Llama 2, Table 8), and batch by batch: a model has not seen the held-out part of any."
    )
    return html.paragraph(said, "soft") + html.row(*parts)
