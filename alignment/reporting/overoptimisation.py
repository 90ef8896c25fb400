"""Does the reward still buy quality? Reward and gold against the distance that was paid.

Gao et al. 2022 (arXiv 2210.10760) plot both against d = √KL: the trained-on reward goes on rising
where gold turns down, gold ≈ d·(α − β·d) for best-of-n. The series has few points, so the law is
fitted to show where its peak would lie, not to be believed to the digit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignment.config.vocabulary import DOMAINS
from alignment.reporting.comparison import Comparison, Entry, Stages
from alignment.reporting.headline import JUDGE_TITLES
from alignment.reporting.plots import Curve, Picture, lines, short

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


def over_optimisation(_stages: Stages, comparison: Comparison) -> dict[str, Any] | None:
    """The report's section: curves of every judge, and findings in words."""
    pictures, findings = [], []
    sides = [entry.side for entry in comparison.policies if entry.figures.get("kl_sft") is not None]
    for axis in DOMAINS:
        curves = {}
        for judge in comparison.judges:
            curve = gains(comparison, judge, axis)
            if len(curve) < 2:
                continue
            title = JUDGE_TITLES.get(judge, judge)
            scale = _spread(comparison.policies, judge, axis)
            curve = [(d, gain / scale) for d, gain in curve]
            curves[f"{title} score"] = curve
            law = fit_law(*zip(*curve, strict=True))
            if law is not None and law.peak is not None and judge != "rm":
                findings.append(
                    f"{axis}, {title}: gain ≈ d·({law.alpha:.2f} − {law.beta:.3f}·d) peaks at "
                    f"d = √KL = {law.peak:.1f}"
                )
        if curves:
            picture = lines(
                curves,
                title=f"{axis}: gain over SFT against distance",
                x="√KL from SFT, √nats per answer",
                y="gain, as a share of the largest",
                names=[short(side) for side in sides],
            )
            pictures.append(Picture(picture, f"{axis} over-optimisation"))
        for truth in (judge for judge in comparison.judges if judge != "rm"):
            for side in diverging(comparison, axis, "rm", truth):
                findings.append(
                    f"Warning: on {axis} the reward models prefer {side} to its predecessor, "
                    f"{JUDGE_TITLES.get(truth, truth)} does not"
                )
    return {"pictures": pictures, "findings": findings} if pictures else None


def _spread(entries: Sequence[Entry], judge: str, axis: str) -> float:
    values = [entry.figures.get(f"score/{judge}/{axis}") for entry in entries]
    scores = [value for value in values if value is not None]
    return max(abs(score - scores[0]) for score in scores) or 1.0
