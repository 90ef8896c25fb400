"""A version's reward models as tables in the terminal, from the evaluation.json of their stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.text import Text

from alignment.config.vocabulary import DOMAINS, STRENGTHS
from alignment.reporting.version_table import DASH, percent
from alignment.reporting.wide_table import WideTable

COLUMNS = {
    "significantly": "signif.",
    "better": "better",
    "slightly": "slightly",
    "negligibly": "neglig.",
    "all": "all",
}
BINS = {
    "chosen_safe": "one safe",
    "both_safe": "both safe",
    "both_unsafe": "both unsafe",
}


Evaluations = Mapping[str, Mapping[str, Any]]
"""Stage name (`reward_helpfulness`, …) → content of evaluation.json."""


def reward_tables(version: str, evaluations: Evaluations) -> Group:
    """Both reward models (and guards) of one version as tables."""
    parts: list[Text | WideTable] = [
        Text(f"Reward models of {version}", style="bold"),
        Text(
            "Share of held-out comparisons ranked right, %, with 95 % intervals (Llama 2, Table 8)"
        ),
        _by_strength(evaluations),
        Text("\nBy batch, each model on its own domain, %"),
        _by_batch(evaluations),
    ]
    if any(figures["unsafe"]["unsafe"] for figures in evaluations.values()):
        parts.append(Text("\nSafety: accuracy by bin, and finding unsafe answers (Table 29), %"))
        parts.append(_unsafe(evaluations))
    parts.append(Text())
    for name, figures in evaluations.items():
        parts += [Text(line, style="dim") for line in sentences(name, figures)]
    return Group(*parts)


def _by_strength(evaluations: Evaluations) -> WideTable:
    table = WideTable("model", "test set", *COLUMNS.values(), "n", labels=2)
    for name, figures in evaluations.items():
        for test in DOMAINS:
            cells = figures["by_strength"][test]
            if cells["all"]["count"]:
                table.add_row(
                    title(name),
                    test,
                    *(interval(cells[column]) for column in COLUMNS),
                    f"{cells['all']['count']:.0f}",
                    style=None if test == figures["domain"] else "dim",
                )
    return table


def _by_batch(evaluations: Evaluations) -> WideTable:
    table = WideTable("model", "batch", *COLUMNS.values(), "n", labels=2)
    for name, figures in evaluations.items():
        for batch, cells in figures["by_batch"][figures["domain"]].items():
            table.add_row(
                title(name),
                figures["versions"].get(batch, batch),
                *(interval(cells[column]) for column in COLUMNS),
                f"{cells['all']['count']:.0f}",
            )
        before = figures["newest"].get("before")
        if before and before["count"]:
            blanks = [DASH] * len(STRENGTHS)
            count = f"{before['count']:.0f}"
            row = (title(name), "newest, by the", *blanks, interval(before), count)
            table.add_row(*row, style="dim")
            table.add_row("", "previous model", style="dim")
    return table


def _unsafe(evaluations: Evaluations) -> WideTable:
    table = WideTable("model", *BINS.values(), "recall", "precision", "unsafe of n")
    for name, figures in evaluations.items():
        unsafe = figures["unsafe"]
        ends = ("", "_low", "_high")
        table.add_row(
            title(name),
            *(interval(figures["by_bin"][bin]) for bin in BINS),
            *(
                percent(*(unsafe[f"{kind}{end}"] for end in ends))
                for kind in ("recall", "precision")
            ),
            f"{unsafe['unsafe']:.0f} of {unsafe['answers']:.0f}",
            style=None if figures["domain"] == "safety" else "dim",
        )
    return table


def title(stage: str) -> str:
    """`reward_safety` → `safety`, `guard_safety` → `safety guard`."""
    kind, _, domain = stage.partition("_")
    return f"{domain} guard" if kind == "guard" else domain


def interval(cell: Mapping[str, Any]) -> str:
    """`78.1 [71–84]`."""
    return percent(cell["accuracy"], cell["low"], cell["high"])


def sentences(stage: str, figures: Mapping[str, Any]) -> Iterator[str]:
    """What the tables do not hold, one figure a line."""
    name = title(stage)
    yield f"{name}: {figures['training']['pairs']:,} comparisons learned from"
    measured = figures["by_strength"][figures["domain"]]["all"]["count"]
    available = figures.get("available", {}).get(figures["domain"], measured)  # since 0.2
    if measured < available:
        yield f"  measured on {measured:,.0f} of {available:,} held-out comparisons, at random"
    length = figures["length"]
    if length["correlation"] is not None:
        yield (
            f"  length: “the longer answer wins” is right in {interval(length['longer_wins'])} %; "
            f"reward and length within prompts r = {length['correlation']:.2f}"
        )
    if figures["ece"] is not None:
        yield f"  calibration: ECE {100 * figures['ece']:.1f} %"
    near = figures.get("near_copies")  # not in work of before 0.2
    if near and near["near"]["count"] and near["far"]["count"]:
        yield (
            f"  near copies: {interval(near['near'])} % on {near['near']['count']:.0f} comparisons "
            f"whose prompt training almost has, {interval(near['far'])} % on the others"
        )
    newest = figures["newest"]
    if newest.get("before") and newest["gain"]["points"] is not None:
        gain = newest["gain"]
        bounds = [gain[end] for end in ("low", "high") if gain[end] is not None]
        shown = f" [{', '.join(f'{100 * bound:+.1f}' for bound in bounds)}]" if bounds else ""
        yield (
            f"  the new batch: {interval(newest['now'])} %, the previous model "
            f"{interval(newest['before'])} % before anything was trained on it "
            f"({100 * gain['points']:+.1f} points{shown})"
        )
    agreement = figures.get("agreement")
    if agreement and agreement["same"]["accuracy"] is not None:
        yield (
            f"  agrees with the main model on {interval(agreement['same'])} % of the pairs "
            f"(unrelated errors: {100 * agreement['chance']:.1f} %); both wrong on "
            f"{100 * agreement['both_wrong']:.1f} %"
        )
    yield from _forecast(figures["growth"])


def _forecast(growth: Mapping[str, Any]) -> Iterator[str]:
    points: Sequence[Mapping[str, Any]] = growth["points"]
    if len(points) > 1:
        shown = ", ".join(f"{100 * p['all']['accuracy']:.1f} % at {p['pairs']:,}" for p in points)
        yield f"  growth on the same comparisons: {shown}"
    for row in growth.get("forecast", []):
        if row["times"] == 2.0:
            yield (
                f"  twice the comparisons ({row['pairs']:,}) would give {interval(row)} % "
                f"if error goes on as n^{growth['law']['b']:.2f}"
            )
    for row in growth.get("price", []):
        if row["points"] == 0.01:
            more_pairs = row["more_pairs"]
            text = (
                "no number of comparisons by this law"
                if more_pairs is None
                else f"{more_pairs:,.0f} more"
            )
            low, high = row["low"], row["high"]
            if low is not None:
                text += f" [{low:,.0f}, {'∞' if high is None else f'{high:,.0f}'}]"
            yield f"  one point more: {text}"
