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


def render(comparison: Comparison) -> Group:
    """Versions as rows; win rates against SFT by every judge, then the price."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("version", no_wrap=True)
    for judge in comparison.judges:
        for axis in AXES:
            title = JUDGE_TITLES.get(judge, judge)
            table.add_column(f"{axis}\n{title} vs SFT", justify="right", no_wrap=True)
    for title in (
        "RM acc.\nhelpful",
        "RM acc.\nsafety",
        "KL from\nSFT",
        "false\nrefusals",
        "length",
    ):
        table.add_column(title, justify="right", no_wrap=True)
    for entry in comparison.entries:
        table.add_row(*_cells(comparison, entry), style="bold" if entry.champion else None)
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
