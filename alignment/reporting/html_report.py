"""One self-contained HTML page about a program: which version is best, why, and at what price.

Every section reads what stages left on disk; one without data is left out and named at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alignment.evaluation.responses import AXES, side_title
from alignment.reporting import html
from alignment.reporting.comparison import Comparison, Stages, comparison
from alignment.reporting.overoptimisation import section as over_optimisation
from alignment.reporting.pareto_plot import panels, path_picture
from alignment.reporting.plots import winrate_matrix
from alignment.reporting.sections import histogram, ppo, samples, texts
from alignment.reporting.sections_lineage import cost, lineage
from alignment.reporting.sections_rewards import reward_accuracy
from alignment.reporting.sections_sampling import best_of_n, temperatures
from alignment.reporting.version_table import grid, notes
from alignment.utils.files import atomic_write_text

Block = Callable[[Stages, Comparison], str | None]


def write_report(
    stages: Stages, target: Path, *, title: str, found: Comparison | None = None
) -> None:
    """Write the page for the given versions to `target`.

    Args:
        stages: version → stage → committed directory.
        found: what `comparison` made of them, with people's decisions.

    Raises:
        AlignError: no version is evaluated.
    """
    atomic_write_text(target, render_report(stages, title=title, found=found))


def render_report(stages: Stages, *, title: str, found: Comparison | None = None) -> str:
    """The page as text; it names no path, so the same figures give the same page."""
    found = found or comparison(stages)
    sections: list[tuple[str, str, str]] = []
    missing: list[str] = []
    for anchor, heading, block in BLOCKS:
        content = block(stages, found)
        if content is None:
            missing.append(heading)
        else:
            sections.append((anchor, heading, content))
    if missing:
        left = html.paragraph(f"No data yet for: {', '.join(missing)}.", "soft")
        sections.append(("missing", "Not shown", left))
    return html.page(title, sections, _top(found))


def _top(found: Comparison) -> str:
    parts = []
    first, *others = found.summary()
    parts.append(html.paragraph(first, "verdict"))
    parts += [html.paragraph(line) for line in others]
    if "gold" in found.judges:
        said = (
            "This program ran in the built-in synthetic world: its annotators are simulated, and "
            "“gold” is the world's own exact score, which training never sees."
        )
        parts.append(html.paragraph(said, "soft"))
    return "".join(parts)


def _versions(_stages: Stages, found: Comparison) -> str:
    head, rows = grid(found)
    marked = [number for number, entry in enumerate(found.entries) if entry.champion]
    return html.table(head, rows, marked=marked) + html.bullets(
        [line.strip() for line in notes(found)]
    )


def _path(_stages: Stages, found: Comparison) -> str | None:
    if not panels(found):
        return None
    said = (
        "Each point is a version's win rate against SFT on the evaluation prompts of each axis. "
        "Where the reward models see a gain that the other judge does not, training has climbed "
        "the reward and not the quality."
    )
    return html.image(path_picture(found), "helpfulness and safety of all versions") + (
        html.paragraph(said, "soft")
    )


def _decisions(_stages: Stages, found: Comparison) -> str | None:
    if not found.decisions:
        return None
    rows = []
    for version, decision in found.decisions.items():
        result = "the gate passed it" if decision["promoted"] else "the gate stopped it"
        word = found.words.get(version)
        if word is not None:
            verb = "approved" if word["approved"] else "rejected"
            result += f"; {verb} by {word['by']}"
            result += f": {word['reason']}" if word["reason"] else ""
        rows.append(
            f"<h3>{html.escape(f'{version}: {result}')}</h3>"
            + html.bullets(
                [f"{'✓' if check['ok'] else '✗'} {check['said']}" for check in decision["checks"]]
            )
        )
    return "".join(rows)


def _matrix(_stages: Stages, found: Comparison) -> str | None:
    if not found.winrates:
        return None
    parts = []
    for judge in found.judges:
        pictures = [
            html.image(winrate_matrix(found, judge, axis), f"{axis} win rates by {judge}")
            for axis in AXES
            if any(row["judge"] == judge and row["axis"] == axis for row in found.winrates)
        ]
        if pictures:
            parts.append(html.row(*pictures))
    return "".join(parts) + _length_table(found)


def _length_table(found: Comparison) -> str:
    """Raw and length-controlled rates against SFT: does a version win by writing more?"""
    rows = []
    for row in found.winrates:
        if row["b"] != "sft":
            continue
        rows.append(
            [
                side_title(row["a"]),
                row["judge"],
                row["axis"],
                *(
                    f"{100 * row[f'{kind}win_rate']:.1f} "
                    f"[{100 * row[f'{kind}low']:.0f}–{100 * row[f'{kind}high']:.0f}]"
                    for kind in ("", "lc_")
                ),
                f"{100 * row['ties']:.1f}",
                f"{row['length_gap']:+.1f}",
            ]
        )
    head = ["against SFT", "judge", "axis", "win rate, %", "at equal length, %", "ties, %"]
    return "<h3>Does length decide?</h3>" + html.table([*head, "length gap,\ncharacters"], rows)


def _forgetting(_stages: Stages, found: Comparison) -> str | None:
    rows = [row for rows in found.forgetting.values() for row in rows if "difference" in row]
    if not rows:
        return None
    rows.sort(key=lambda row: row["high"])
    lost = [number for number, row in enumerate(rows) if row["forgotten"]]
    if not lost:
        said = (
            f"No category fell below its best earlier version with the whole interval "
            f"({len(rows)} comparisons)."
        )
        return html.paragraph(said)
    shown = [row for row in rows if row["forgotten"]]
    return html.paragraph(
        "Categories in which a version is worse than the best earlier one, the whole interval "
        "below zero. The best of several owes part of its lead to luck: read the answers too.",
        "soft",
    ) + html.table(
        ["version", "axis", "category", "score", "best before", "difference"],
        [
            [
                row["side"],
                row["domain"],
                row["category"],
                f"{row['score']:.2f}",
                f"{row['best_score']:.2f} ({row['best']})",
                f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]",
            ]
            for row in shown
        ],
    )


BLOCKS: tuple[tuple[str, str, Block], ...] = (
    ("versions", "Versions", _versions),
    ("path", "Helpfulness and safety", _path),
    ("lineage", "Made from", lineage),
    ("decisions", "Promotion", _decisions),
    ("matrix", "Every version against every other", _matrix),
    ("forgetting", "Forgetting", _forgetting),
    ("over-optimisation", "Over-optimisation", over_optimisation),
    ("rewards", "Rewards of every version by one judge", histogram),
    ("accuracy", "Reward models", reward_accuracy),
    ("best-of-n", "Best of n", best_of_n),
    ("temperature", "Sampling temperature", temperatures),
    ("ppo", "PPO", ppo),
    ("texts", "Length and variety", texts),
    ("samples", "The same prompts across versions", samples),
    ("cost", "Cost", cost),
)
