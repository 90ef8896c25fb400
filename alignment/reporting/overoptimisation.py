"""Does the reward still buy quality? Reward and gold against the distance that was paid.

Gao et al. 2022 (arXiv 2210.10760) plot both against d = √KL: the trained-on reward goes on rising
where gold turns down, gold ≈ d·(α − β·d) for best-of-n. The series has few points, so the law is
fitted to show where its peak would lie, not to be believed to the digit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignment.config.vocabulary import DOMAINS
from alignment.evaluation.responses import SCORES, judges_of, read_table, split_sides
from alignment.reporting.comparison import Comparison, Stages
from alignment.reporting.headline import JUDGE_TITLES
from alignment.reporting.plots import Curve, Picture, lines, short

ONE_JUDGE = "Not drawn: it takes scores by a second judge to see what the reward models do not."
BELIEVED = 3.0  # a peak is told up to so many times the greatest distance that was measured


@dataclass(frozen=True)
class DistanceLaw:
    """gain ≈ d·(α − β·d) with its fit's residual; gains in standard deviations of SFT's scores.

    `reach` is the greatest d that was measured.
    """

    alpha: float
    beta: float
    residual: float
    reach: float

    @property
    def peak(self) -> float | None:
        """The d at which the gain is greatest; None where the law does not turn down, or so far
        beyond what was measured that the figure would be made of noise."""
        if self.beta <= 0 or self.alpha <= 0:
            return None
        peak = self.alpha / (2 * self.beta)
        return peak if peak <= BELIEVED * self.reach else None


def fit_law(distances: Sequence[float], gains: Sequence[float]) -> DistanceLaw | None:
    """Least squares through the origin; None with fewer than three points off the origin."""
    d, gain = np.asarray(distances, float), np.asarray(gains, float)
    if (d > 0).sum() < 3:
        return None
    features = np.stack([d, -(d**2)], axis=1)
    (alpha, beta), *_ = np.linalg.lstsq(features, gain, rcond=None)
    residual = float(np.sqrt(np.mean((features @ [alpha, beta] - gain) ** 2)))
    return DistanceLaw(float(alpha), float(beta), residual, float(d.max()))


def gains(comparison: Comparison, judge: str, axis: str) -> Curve:
    """(√KL from SFT, mean score − SFT's mean score) for every side that has both, SFT first."""
    name = f"score/{judge}/{axis}"
    start = next(
        (entry.figures.get(name) for entry in comparison.policies if entry.side == "sft"), None
    )
    if start is None:
        return []
    curve = []
    for entry in comparison.policies:
        value, kl = entry.figures.get(name), entry.figures.get("kl_sft")
        if value is not None and kl is not None:
            curve.append((math.sqrt(max(kl, 0.0)), value - start))
    return curve


def diverging(comparison: Comparison, axis: str, reward: str, truth: str) -> list[str]:
    """Sides for which `reward` prefers them to their predecessor and `truth` the predecessor,
    both with the interval off ½: the reward was climbed at the cost of what it stands for."""
    from alignment.evaluation.judging import find_rate

    warned = []
    for before, after in zip(comparison.policies, comparison.policies[1:], strict=False):
        rows = [
            find_rate(comparison.winrates, after.side, before.side, judge, axis)
            for judge in (reward, truth)
        ]
        if rows[0] and rows[1] and rows[0]["low"] > 0.5 and rows[1]["high"] < 0.5:
            warned.append(after.side)
    return warned


def over_optimisation(stages: Stages, comparison: Comparison) -> dict[str, Any] | None:
    """The report's section: curves of every judge, and findings in words.

    One judge alone is not drawn: over-optimisation is what another one sees. A language model gives
    no scores, but is heard in the findings.
    """
    pictures, findings, alone = [], [], False
    deviations = _deviations(stages[comparison.newest]["evaluate"])
    sides = [entry.side for entry in comparison.policies if entry.figures.get("kl_sft") is not None]
    for axis in DOMAINS:
        curves = {}
        for judge in comparison.judges:
            curve = gains(comparison, judge, axis)
            scale = deviations.get((judge, axis), 0.0)
            if len(curve) < 2 or scale <= 0:
                continue
            title = JUDGE_TITLES.get(judge, judge)
            curve = [(d, gain / scale) for d, gain in curve]
            curves[f"{title} score"] = curve
            law = fit_law(*zip(*curve, strict=True))
            if law is not None and law.peak is not None and judge != "rm":
                findings.append(
                    f"{axis}, {title}: gain ≈ d·({law.alpha:.2f} − {law.beta:.3f}·d) peaks at "
                    f"d = √KL = {law.peak:.1f}"
                )
        if len(curves) > 1:
            picture = lines(
                curves,
                title=f"{axis}: gain over SFT against distance",
                x="√KL from SFT, √nats per answer",
                y="gain, deviations of SFT's scores",
                names=[short(side) for side in sides],
            )
            pictures.append(Picture(picture, f"{axis} over-optimisation"))
        alone = alone or len(curves) == 1
        for truth in (judge for judge in comparison.judges if judge != "rm"):
            for side in diverging(comparison, axis, "rm", truth):
                findings.append(
                    f"Warning: on {axis} the reward models prefer {side} to its predecessor, "
                    f"{JUDGE_TITLES.get(truth, truth)} does not"
                )
    if alone and not pictures:
        findings.insert(0, ONE_JUDGE)
    return {"pictures": pictures, "findings": findings} if pictures or findings else None


def _deviations(evaluation: Path) -> dict[tuple[str, str], float]:
    """(Judge, axis) → standard deviation of SFT's scores: a unit that judges have in common."""
    scores = split_sides([read_table(evaluation / SCORES)]).get("sft")
    if scores is None:
        return {}
    return {
        (judge, axis): float(scores.loc[scores.domain == axis, f"{judge}_{axis}"].std())
        for judge in judges_of(scores)
        for axis in DOMAINS
    }
