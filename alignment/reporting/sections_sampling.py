"""Sections of the report on sampling: what more samples give, how far it goes, at what heat."""

from __future__ import annotations

from collections.abc import Sequence

from alignment.reporting import html, plots
from alignment.reporting.comparison import Comparison, Stages
from alignment.reporting.sections import versions_with
from alignment.utils.files import read_json

Curve = list[tuple[float, float]]


def best_of_n(stages: Stages, _found: Comparison) -> str | None:
    """Expected best and median reward of n samples (Llama 2, Fig 7), one curve a version."""
    names = [
        name
        for name in versions_with(stages, "select")
        if (stages[name]["select"] / "curves.json").is_file()
    ]
    if not names:
        return None
    best, gain = {}, {}
    for name in names:
        rows = read_json(stages[name]["select"] / "curves.json")["best_of_n"]
        best[plots.short(name)] = [(row["n"], row["best"]) for row in rows]
        gain[plots.short(name)] = [(row["n"], row["best"] - row["median"]) for row in rows]
    said = (
        "Each version's samples are scored by its own reward models, so heights of different "
        "versions do not compare; the distance between best and median is what selection gains."
    )
    pictures = html.row(
        *(
            html.image(
                plots.lines(curves, title=title, x="n samples", y="combined reward", markers=False),
                title,
            )
            for curves, title in (
                (best, "expected reward of the best of n"),
                (gain, "best of n above the median"),
            )
        )
    )
    return html.paragraph(said, "soft") + pictures + _distances(stages, names)


def _distances(stages: Stages, names: Sequence[str]) -> str:
    """What selection asks for at most, and how far the policy really went, nats per answer."""
    rows = []
    for name in names:
        metrics = stages[name]["select"] / "metrics.json"
        if "evaluate" not in stages[name] or not metrics.is_file():
            continue
        asked = read_json(metrics)
        went = read_json(stages[name]["evaluate"] / "metrics.json")
        if "kl_parent" not in went or "kl_upper_bound" not in asked:
            continue
        rows.append(
            [
                plots.short(name) + (" with PPO" if "ppo" in stages[name] else ""),
                f"{asked['kl_upper_bound']:.2f}",
                f"{asked['kl_estimate']:.2f}",
                f"{went['kl_parent']:.2f} "
                f"[{went['kl_parent_low']:.2f}–{went['kl_parent_high']:.2f}]",
            ]
        )
    if not rows:
        return ""
    said = (
        "How far best-of-n itself is from the policy it samples, in nats per answer: "
        "log n − (n−1)/n bounds it from above, the estimate of Beirami et al. (2024) is tighter. "
        "Neither is the distance of the fine-tuned policy, measured on its own answers: it may be "
        "larger, for several epochs on few answers imitate them more closely than best-of-n does."
    )
    head = ["version", "bound for n samples", "tighter estimate", "measured, from its parent"]
    return html.paragraph(said, "soft") + html.table(head, rows)


def temperatures(stages: Stages, _found: Comparison) -> str | None:
    """Expected best of K at each temperature tried (Llama 2, Fig 8), one curve a version."""
    curves: dict[str, Curve] = {}
    chosen = []
    for name in versions_with(stages, "sample"):
        path = stages[name]["sample"] / "temperature.json"
        if not path.is_file():
            continue
        found = read_json(path)
        chosen.append(f"{plots.short(name)} {found['temperature']:g}")
        tried = found.get("search") or []
        if len(tried) > 1:
            # Above the lowest: levels of different reward models do not compare.
            low = min(one["expected"] for one in tried)
            pairs = [(one["temperature"], one["expected"] - low) for one in tried]
            curves[plots.short(name)] = sorted(pairs)
    if not chosen:
        return None
    parts = [html.paragraph(f"Sampled at: {', '.join(chosen)}.")]
    if curves:
        picture = plots.lines(
            curves,
            title="best of K by temperature",
            x="temperature",
            y="expected reward of the best, above the lowest",
        )
        said = (
            "The best temperature moves with the policy (Llama 2, Figure 8): tuned anew each time."
        )
        parts += [html.paragraph(said, "soft"), html.row(html.image(picture, "temperature"))]
    return "".join(parts)
