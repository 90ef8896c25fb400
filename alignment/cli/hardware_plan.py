"""`align plan --hardware`: what a program needs of given GPUs."""

from __future__ import annotations

from alignment.cli.common import print_json
from alignment.pipeline.gpu_plan import Load, StagePlan, gpu_plan
from alignment.pipeline.gpu_time import assumptions
from alignment.pipeline.hardware import GIB, HEADROOM, Hardware
from alignment.pipeline.reasons import clock


def show(load: Load, hardware: Hardware, price: float | None, json: bool) -> None:
    """Print the plan as a table, or as JSON."""
    plans = gpu_plan(load, hardware)
    if json:
        print_json({"hardware": str(hardware), "stages": [_row(plan, price) for plan in plans]})
        return
    from rich.console import Console
    from rich.table import Table

    card = hardware.card
    table = Table(title=f"on {hardware}", title_justify="left", box=None)
    for column in ("stage", "GPUs", "memory of each", "", "time", "GPU hours"):
        table.add_column(column, justify="left" if column in ("stage", "") else "right")
    for plan in plans:
        runs = plan.runnable
        table.add_row(
            plan.node.key,
            str(plan.gpus),
            f"{plan.memory.total / GIB:,.1f} GiB",
            _verdict(plan),
            clock(runs.seconds) if runs else "–",
            f"{_hours(runs):,.2f}" if runs else "–",
        )
    console = Console(highlight=False)
    console.print(table)
    for plan in plans:
        if not plan.fits:
            console.print(_advice(plan, hardware), soft_wrap=True)
    hours = sum(_hours(plan.runnable) for plan in plans if plan.runnable)
    cost = "" if price is None else f", {hours * price:,.2f} at {price:g} a GPU hour"
    changes = "" if all(plan.fits for plan in plans) else " with these changes"
    missing = [plan.node.key for plan in plans if not plan.runnable]
    without = f" (without {', '.join(missing)})" if missing else ""
    console.print(
        f"one turn of these stages{changes}{without}: {hours:,.1f} GPU hours{cost}. Assumed: "
        f"{assumptions(card)}; {HEADROOM:.0%} of the memory stays free",
        soft_wrap=True,
    )


def _verdict(plan: StagePlan) -> str:
    if not plan.fits:
        return "[red]does not fit[/]"
    return "fits in shards" if plan.sharding == "full" else "fits whole"


def _advice(plan: StagePlan, hardware: Hardware) -> str:
    parts = ", ".join(
        f"{name} {size / GIB:,.1f}"
        for name, size in sorted(plan.memory.parts.items(), key=lambda part: -part[1])
        if size > 0.05 * GIB
    )
    line = f"{plan.node.key} (GiB): {parts}"
    if plan.gpus > hardware.count:
        line += f"; compute.processes asks for {plan.gpus} GPUs"
    if not plan.change:
        return f"{line}. No change that was tried makes it fit: take larger cards."
    settings = " ".join(f"--set {change}" for change in plan.change)
    needs = plan.changed.gpus if plan.changed else 0
    if needs > hardware.count:
        return f"{line}. It fits {needs} such GPUs, with {settings}"
    return f"{line}. It fits with {settings}"


def _hours(plan: StagePlan) -> float:
    """GPU hours."""
    return plan.gpus * plan.seconds / 3600


def _row(plan: StagePlan, price: float | None) -> dict[str, object]:
    runs = plan.runnable
    return {
        "stage": plan.node.key,
        "gpus": plan.gpus,
        "sharding": plan.sharding,
        "memory_bytes": plan.memory.total,
        "parts": dict(plan.memory.parts),
        "fits": plan.fits,
        "change": list(plan.change),
        "gpus_with_change": runs.gpus if runs else None,
        "seconds": runs.seconds if runs else None,
        "gpu_hours": _hours(runs) if runs else None,
        "cost": _hours(runs) * price if runs and price is not None else None,
    }
