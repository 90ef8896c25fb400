"""What a language-model judge makes of the place of an answer: its position bias.

Each pair is judged in both orders, and a pair whose verdict turns round with the order counts as a
tie. So a bias favours neither side, but pulls every win rate towards one half.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from alignment.utils.statistics import Interval, clustered_rate

LARGE = 0.1
"""Share of all pairs, net, that the place decides: beyond it there is a warning. GPT-4 favoured the
first answer in 30 % and the second in 5 % of pairs (MT-Bench, 2306.05685, Table 2)."""


def bias_figures(place: np.ndarray, subjects: np.ndarray) -> dict[str, float]:
    """Figures of the judge, with 95 % intervals over subjects; none without pairs.

    Args:
        place: (n,) `JudgeOutcomes.place`.
        subjects: (n,) what a pair's prompt is about; pairs about one are not independent.

    Returns:
        `position_bias`: share of pairs that the first place won, less that of the second;
        `first_favoured`: of the pairs that a place won, the share of the first, ½ without bias.
    """
    if not len(place):
        return {}
    net = Interval(*(2 * end - 1 for end in clustered_rate((place + 1) / 2, subjects)))
    figures = _three("position_bias", net)
    turned = place != 0
    if turned.any():
        rate = clustered_rate((place[turned] + 1) / 2, subjects[turned])
        figures |= _three("first_favoured", rate)
    return figures


def _three(name: str, interval: Interval) -> dict[str, float]:
    return {f"{name}{end}": v for end, v in zip(("", "_low", "_high"), interval, strict=True)}


def in_words(figures: Mapping[str, float]) -> list[str]:
    """What there is to say about the judge, a line each; none if it judged nothing.

    Args:
        figures: `bias_figures` and `pairs`, `inconsistent`.
    """
    if "position_bias" not in figures:
        return []
    line = (
        f"LM judge: {figures['pairs']:.0f} pairs, each in both orders; the order changed "
        f"{figures['inconsistent']:.1%} of the verdicts"
    )
    if "first_favoured" in figures:
        first, low, high = (figures[f"first_favoured{end}"] for end in ("", "_low", "_high"))
        line += (
            f"; where it turned them round, {100 * first:.0f} % [{100 * low:.0f}–{100 * high:.0f}] "
            "went to the answer read first"
        )
    lines = [f"{line}."]
    bias, low, high = (figures[f"position_bias{end}"] for end in ("", "_low", "_high"))
    if low > LARGE or high < -LARGE:
        lines.append(
            f"Warning: the LM judge prefers the answer that it reads "
            f"{'first' if bias > 0 else 'second'}, in {abs(bias):.0%} of all pairs net "
            f"[{min(abs(low), abs(high)):.0%}–{max(abs(low), abs(high)):.0%}]. Such pairs count as "
            "ties: its win rates lie closer to one half than the answers do. Another model, or "
            "more pairs (evaluate.judge.prompts_per_axis), would tell more."
        )
    return lines
