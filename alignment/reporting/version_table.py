"""The comparison as a table in the terminal."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from alignment.config.vocabulary import DOMAINS
from alignment.evaluation.forgetting import is_forgotten
from alignment.evaluation.position_bias import in_words
from alignment.evaluation.responses import is_constant
from alignment.reporting.comparison import Comparison, Entry
from alignment.reporting.cost import TITLES, basis, together
from alignment.reporting.headline import JUDGE_TITLES, brief
from alignment.world.constants import CONSTANTS

DASH = "–"
PRICE = 5  # columns that tell the price, not the gain


def percent(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """`78.1 [71–84]`, or `78.1 %` without bounds."""
    if value is None:
        return DASH
    if low is None or high is None:
        return f"{100 * value:.1f} %"
    text = f"{100 * value:.1f}"
    return f"{text} [{100 * low:.0f}–{100 * high:.0f}]"


def grid(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Head and rows: win rates against SFT by every judge, then the price (`PRICE` columns)."""
    head = ["version"]
    for judge in comparison.judges:
        title = JUDGE_TITLES.get(judge, judge)
        head += [f"{axis}\n{title}, %" for axis in DOMAINS]
    head += [
        "RM acc., %\nhelpful",
        "RM acc., %\nsafety",
        "KL from\nSFT",
        "false\nrefusals",
        "length",
    ]
    return head, [_cells(comparison, entry) for entry in comparison.entries]


class View:
    """The grid for a terminal, with notes below it; two tables where one is too wide."""

    def __init__(self, comparison: Comparison):
        self._comparison = comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Called by rich."""
        if self._comparison.warning is not None:
            yield Text(self._comparison.warning, style="bold")
            yield Text()
        head, rows = grid(self._comparison)
        whole = self._table(head, rows)
        if console.measure(whole, options=options.update(max_width=10_000)).maximum <= (
            options.max_width
        ):
            yield whole
        else:
            split = len(head) - PRICE
            yield self._table(head[:split], [row[:split] for row in rows])
            yield Text()
            yield self._table([head[0], *head[split:]], [[row[0], *row[split:]] for row in rows])
        yield Text()
        first, *others = self._comparison.summary()
        for line in [*notes(self._comparison), f"★ {first}", *others]:
            yield Text(line, style="dim")
        if self._comparison.costs:
            yield Text()
            yield self._costs()
            yield Text(basis(self._comparison.cost_config), style="dim")

    def _table(self, head: list[str], rows: list[list[str]]) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for number, title in enumerate(head):
            table.add_column(title, justify="right" if number else "left", no_wrap=True)
        for entry, cells in zip(self._comparison.entries, rows, strict=True):
            table.add_row(*cells, style="bold" if entry.champion else None)
        return table

    def _costs(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for title in ("cost of", *(title for _, title in TITLES)):
            table.add_column(title, justify="left" if title == "cost of" else "right")
        for version, stages in self._comparison.costs.items():
            table.add_row(version, *together(stages.values()).cells())
        return table


def _cells(comparison: Comparison, entry: Entry) -> list[str]:
    figures = entry.figures
    cells = [f"{entry.title} ★" if entry.champion else entry.title]
    for judge in comparison.judges:
        for axis in DOMAINS:
            name = f"win/{judge}/{axis}"
            bounds = (figures.get(f"{name}{end}") for end in ("", "_low", "_high"))
            cells.append(DASH if entry.side == "sft" else percent(*bounds))
    for axis in DOMAINS:
        cell = comparison.accuracy.get(axis, {}).get(entry.side, {})
        cells.append(percent(*(cell.get(name) for name in ("accuracy", "low", "high"))))
    kl, length = figures.get("kl_sft"), figures.get("length")
    cells.append(DASH if kl is None else brief(kl))
    cells.append(percent(figures.get("false_refusal")))
    cells.append(DASH if length is None else brief(length))
    return cells


def notes(comparison: Comparison) -> list[str]:
    """What one must know to read the table, and what the newest version has lost."""
    units = "subjects" if any(is_constant(e.side) for e in comparison.entries) else "prompts"
    legend = (
        f"Win rates against SFT with {100 * comparison.level:g} % intervals over {units}; "
        "KL in nats, length in tokens"
    )
    if "rm" in comparison.judges:
        legend += f"; RM: all versions judged by the reward models of {comparison.newest}"
    lines = [f"{legend}."]
    if comparison.accuracy:
        lines.append(
            "RM acc.: every version's reward models on the same held-out comparisons, those up to "
            f"{comparison.newest} (`align rewards` shows each on its own)."
        )
    lines += in_words(comparison.lm_judge)
    lines += [
        f"{entry.title}: “{CONSTANTS[entry.side.partition('/')[2]]}” to every prompt, no policy."
        for entry in comparison.entries
        if is_constant(entry.side)
    ]
    newest = comparison.forgetting.get(comparison.newest, [])
    for row in newest:
        if is_forgotten(row) and row["side"] == comparison.newest:
            lines.append(
                f"{comparison.newest} lost in {row['domain']} / {row['category']}: "
                f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}] "
                f"against {row['best']} on {row['n']} prompts"
            )
    return lines
