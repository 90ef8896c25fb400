"""The progress bar: which stage, what it does, how far, how fast, how long still."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from alignment.execution.observer import Observer
from alignment.pipeline.node import Node
from alignment.pipeline.records import Attempt, Manifest


class _Speed(ProgressColumn):
    """Units per second, or seconds per unit where it is slow."""

    def render(self, task: Task) -> Text:
        unit = task.fields.get("unit", "it")
        if not task.speed:
            return Text("", style="dim")
        if task.speed >= 1:
            return Text(f"{task.speed:,.0f} {unit}/s", style="dim")
        return Text(f"{1 / task.speed:.1f} s/{unit}", style="dim")


class Bar:
    """A `Progress` for the library, drawn by rich."""

    def __init__(self, console: Console, progress: Progress, node: Node):
        self._console = console
        self._progress = progress
        self._node = node
        self._task = progress.add_task(node.key, total=None, label="starting", unit="", figures="")

    def begin(self, label: str, total: int | None = None, unit: str = "it") -> None:
        """A new piece of work: the bar starts again."""
        self._progress.reset(
            self._task, total=total, completed=0, label=label, unit=unit, figures=""
        )

    def advance(self, amount: int = 1, **figures: float) -> None:
        """Move on; figures are shown behind the bar."""
        shown = "  ".join(f"{name} {value:.3g}" for name, value in figures.items())
        self._progress.update(self._task, advance=amount)
        if shown:
            self._progress.update(self._task, figures=shown)

    def say(self, message: str) -> None:
        """A line above the bar."""
        self._console.print(f"  [dim]{self._node.key}:[/] {message}")


@contextmanager
def bar(node: Node, console: Console) -> Iterator[Bar]:
    """A bar for one stage; it goes away when the stage is over."""
    columns = (
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        TextColumn("{task.fields[label]}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Speed(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[figures]}"),
    )
    disabled = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=disabled) as progress:
        yield Bar(console, progress, node)


class Narrator(Observer):
    """An observer that prints one line for every stage that ends."""

    def __init__(self, console: Console, total: int):
        self._console = console
        self._total = total
        self._shown: set[str] = set()
        self._began = time.monotonic()

    def stage_started(self, attempt: Attempt) -> None:
        if attempt.resumed_from is not None:
            self._console.print(
                f"  [dim]{attempt.version}/{attempt.stage}: attempt {attempt.number} goes on from "
                f"what attempt {attempt.resumed_from} left[/]"
            )

    def stage_finished(self, attempt: Attempt, manifest: Manifest) -> None:
        self._line("[green]✓[/]", attempt.version, attempt.stage, f"{manifest.seconds:6.1f} s")

    def stage_cached(self, node: Node, manifest: Manifest) -> None:
        if node.key in self._shown:
            return  # done a moment ago, while Prefect's server was coming up
        self._line("[dim]·[/]", node.version, node.stage, "[dim]done before[/]")

    def stage_failed(self, attempt: Attempt) -> None:
        if attempt.status == "killed":
            why = escape(attempt.error or attempt.status)
            self._line("[yellow]■[/]", attempt.version, attempt.stage, f"[yellow]{why}[/]")
        else:
            self._line("[red]✗[/]", attempt.version, attempt.stage, f"[red]{attempt.status}[/]")

    def _line(self, mark: str, version: str, stage: str, text: str) -> None:
        self._shown.add(f"{version}/{stage}")
        elapsed = int(time.monotonic() - self._began)
        clock = f"{elapsed // 60}:{elapsed % 60:02d}"
        place = f"[dim]{len(self._shown):3d}/{self._total}  {clock:>6}[/]"
        self._console.print(f"{place}  {mark} {version + '/' + stage:<28}{text}")
