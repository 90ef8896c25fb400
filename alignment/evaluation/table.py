"""The comparison as a table in the terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from alignment.evaluation.compare import JUDGE_TITLES, Comparison, Entry
from alignment.evaluation.headline import find_headline
from alignment.evaluation.responses import AXES

DASH = "–"


def percent(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """`78.1 % [71–84]`."""
    if value is None:
        return DASH
    text = f"{100 * value:.1f} %"
    return text if low is None or high is None else f"{text} [{100 * low:.0f}–{100 * high:.0f}]"


def grid(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Head and rows: win rates against SFT by every judge, then the price."""
    head = ["version"]
    for judge in comparison.judges:
        title = JUDGE_TITLES.get(judge, judge)
        head += [f"{axis}\n{title} vs SFT" for axis in AXES]
    head += ["RM acc.\nhelpful", "RM acc.\nsafety", "KL from\nSFT", "false\nrefusals", "length"]
    return head, [_cells(comparison, entry) for entry in comparison.entries]


def render(comparison: Comparison) -> Group:
    """The grid for a terminal, with notes below it."""
    head, rows = grid(comparison)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, title in enumerate(head):
        table.add_column(title, justify="right" if number else "left", no_wrap=True)
    for entry, cells in zip(comparison.entries, rows, strict=True):
        table.add_row(*cells, style="bold" if entry.champion else None)
    return Group(table, *(Text(line, style="dim") for line in notes(comparison)))


def _cells(comparison: Comparison, entry: Entry) -> list[str]:
    figures = entry.figures
    cells = [f"{entry.title} ★" if entry.champion else entry.title]
    for judge in comparison.judges:
        for axis in AXES:
            name = f"win/{judge}/{axis}"
            bounds = (figures.get(f"{name}{end}") for end in ("", "_low", "_high"))
            cells.append(DASH if entry.side == "sft" else percent(*bounds))
    for axis in AXES:
        cells.append(percent(entry.headline.get(f"reward_accuracy_{axis}")))
    cells.append(find_headline("kl_sft").show(figures).removesuffix(" nats"))
    cells.append(percent(figures.get("false_refusal")))
    cells.append(find_headline("length").show(figures).removesuffix(" tokens"))
    return cells


def notes(comparison: Comparison) -> list[str]:
    """What one must know to read the table, and the last verdict."""
    lines = []
    said = f"{100 * comparison.level:g} % intervals over prompts; KL in nats, length in tokens"
    if "rm" in comparison.judges:
        said += f"; RM: all versions judged by the reward models of {comparison.newest}"
    lines.append(f"\n{said}.")
    if comparison.champion:
        lines.append(f"★ champion: {comparison.champion}.")
    if comparison.decisions:
        lines.append(next(reversed(comparison.decisions.values()))["verdict"])
    for version, rows in comparison.forgetting.items():
        lost = [row for row in rows if row.get("forgotten") and row["side"] == version]
        for row in lost:
            lines.append(
                f"{version} lost in {row['domain']} / {row['category']}: "
                f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}] "
                f"against {row['best']}"
            )
    return lines
