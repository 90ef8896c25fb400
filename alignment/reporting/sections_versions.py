"""Sections of the report that show the comparison of versions itself."""

from __future__ import annotations

from typing import Any

from alignment.config.vocabulary import DOMAINS
from alignment.evaluation.forgetting import is_forgotten
from alignment.evaluation.responses import side_title
from alignment.reporting.comparison import Comparison, Stages
from alignment.reporting.pareto_plot import panels, path_picture
from alignment.reporting.plots import Picture, winrate_matrix
from alignment.reporting.version_table import grid, notes, percent


def table(_stages: Stages, comparison: Comparison) -> dict[str, Any]:
    """The versions side by side, as `align compare` shows them."""
    head, rows = grid(comparison)
    marked = [number for number, entry in enumerate(comparison.entries) if entry.champion]
    return {"head": head, "rows": rows, "marked": marked, "notes": notes(comparison)}


def path(_stages: Stages, comparison: Comparison) -> dict[str, Any] | None:
    """The way from SFT to the last version (Llama 2, Fig 11)."""
    if not panels(comparison):
        return None
    return {
        "picture": Picture(path_picture(comparison), "helpfulness and safety of all versions"),
    }


def decisions(_stages: Stages, comparison: Comparison) -> dict[str, Any] | None:
    """What the gate checked, and what a person decided."""
    rows = []
    for version, decision in comparison.decisions.items():
        title = f"{version}: the gate {'passed' if decision['promoted'] else 'stopped'} it"
        approval = comparison.words.get(version)
        if approval is not None:
            title += f"; {'approved' if approval['approved'] else 'rejected'} by {approval['by']}"
            title += f": {approval['reason']}" if approval["reason"] else ""
        checks = [f"{'✓' if check['ok'] else '✗'} {check['said']}" for check in decision["checks"]]
        rows.append({"title": title, "checks": checks})
    return {"decisions": rows} if rows else None


def matrix(_stages: Stages, comparison: Comparison) -> dict[str, Any] | None:
    """Win rates of all pairs by every judge; raw and at equal length against SFT."""
    if not comparison.winrates:
        return None
    judged = {(row["judge"], row["axis"]) for row in comparison.winrates}
    by_judge = [
        [
            Picture(winrate_matrix(comparison, judge, axis), f"{axis} win rates by {judge}")
            for axis in DOMAINS
            if (judge, axis) in judged
        ]
        for judge in comparison.judges
    ]
    rows = [
        [
            side_title(row["a"]),
            row["judge"],
            row["axis"],
            *(
                percent(row[f"{kind}win_rate"], row[f"{kind}low"], row[f"{kind}high"])
                for kind in ("", "lc_")
            ),
            f"{100 * row['ties']:.1f}",
            f"{row['length_gap']:+.1f}",
        ]
        for row in comparison.winrates
        if row["b"] == "sft"
    ]
    return {"by_judge": [pictures for pictures in by_judge if pictures], "rows": rows}


def forgetting(_stages: Stages, comparison: Comparison) -> dict[str, Any] | None:
    """Categories in which a version fell below the best earlier one."""
    compared = [row for rows in comparison.forgetting.values() for row in rows if "best" in row]
    if not compared:
        return None
    rows = [
        [
            row["side"],
            row["domain"],
            row["category"],
            f"{row['score']:.2f}",
            f"{row['best_score']:.2f} ({row['best']})",
            f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]",
            str(row["n"]),
        ]
        for row in sorted(filter(is_forgotten, compared), key=lambda row: row["high"])
    ]
    return {"rows": rows, "compared": len(compared)}
