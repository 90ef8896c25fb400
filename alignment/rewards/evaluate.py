"""How good a reward model is, measured as Llama 2 did: by strength, test set and batch.

Everything here works on arrays of scores; `measure` scores comparisons, `evaluate` makes the
figures. Averages are dominated by near-ties, so look at the clearest pairs first (Table 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignment.config.rewards import STRENGTHS
from alignment.rewards.elements import SAFE_LABELS
from alignment.rewards.mixture import Source
from alignment.rewards.model import RewardModel
from alignment.seeds import derive_seed
from alignment.statistics import NOTHING, Interval, bootstrap_mean, correlation, wilson


@dataclass(frozen=True)
class Measured:
    """Scores of n held-out comparisons and what is known of them; all arrays are (n,).

    Attributes:
        chosen, rejected: raw scores.
        chosen_safe, rejected_safe: P(safe) by the model.
        chosen_tokens, rejected_tokens: lengths of the answers.
        bins: safety bin, or "" where there is none.
    """

    chosen: np.ndarray
    rejected: np.ndarray
    chosen_safe: np.ndarray
    rejected_safe: np.ndarray
    chosen_tokens: np.ndarray
    rejected_tokens: np.ndarray
    strength: np.ndarray
    domain: np.ndarray
    batch: np.ndarray
    bins: np.ndarray

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def right(self) -> np.ndarray:
        """1 where the chosen answer scores higher, ½ for a tie, 0 else."""
        return (self.chosen > self.rejected) + 0.5 * (self.chosen == self.rejected)

    @property
    def longer(self) -> np.ndarray:
        """The same for "the longer answer wins", the baseline that reads nothing."""
        more = self.chosen_tokens > self.rejected_tokens
        return more + 0.5 * (self.chosen_tokens == self.rejected_tokens)

    def where(self, chosen: np.ndarray) -> Measured:
        """The comparisons that a boolean array picks."""
        return Measured(**{name: getattr(self, name)[chosen] for name in self.__dataclass_fields__})


def measure(model: RewardModel, sources: Sequence[Source], tokens_per_batch: int) -> Measured:
    """Score both sides of every comparison."""
    items = []
    for source in sources:
        row = source.comparison
        for answer in (row.chosen, row.rejected):
            items.append(model.renderer.tokens(row.conversation, answer))
    raw = model.score(items, tokens_per_batch).reshape(-1, 2)
    safe = model.probability(raw)
    lengths = np.array([len(item.response) for item in items], dtype=np.int64).reshape(-1, 2)
    rows = [source.comparison for source in sources]
    return Measured(
        chosen=raw[:, 0],
        rejected=raw[:, 1],
        chosen_safe=safe[:, 0],
        rejected_safe=safe[:, 1],
        chosen_tokens=lengths[:, 0],
        rejected_tokens=lengths[:, 1],
        strength=np.array([row.strength for row in rows], dtype=object),
        domain=np.array([row.domain for row in rows], dtype=object),
        batch=np.array([source.batch for source in sources], dtype=object),
        bins=np.array([row.safety_bin or "" for row in rows], dtype=object),
    )


def accuracy(measured: Measured, seed: int, samples: int) -> Interval:
    """Share ranked right with a bootstrap interval; Wilson's where every answer is alike."""
    right = measured.right
    if len(right) == 0:
        return NOTHING
    if np.ptp(right) == 0:
        return wilson(float(right.sum()), len(right))
    return bootstrap_mean(right, seed=seed, samples=samples)


def calibration(
    chosen: np.ndarray, rejected: np.ndarray, bins: int = 10
) -> tuple[float, list[dict[str, float]]]:
    """Expected calibration error of P(right) = σ(|r_c − r_r|), and the reliability diagram.

    Returns:
        ECE = Σ n_b/n · |accuracy_b − confidence_b| over equal bins of [½, 1], and each non-empty
        bin's confidence, accuracy and count.
    """
    gap = chosen - rejected
    confidence = 1.0 / (1.0 + np.exp(-np.abs(gap)))
    right = (gap > 0) + 0.5 * (gap == 0)
    place = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    rows, error = [], 0.0
    for b in range(bins):
        inside = place == b
        count = int(inside.sum())
        if count:
            mean, share = float(confidence[inside].mean()), float(right[inside].mean())
            error += count / len(gap) * abs(share - mean)
            rows.append({"confidence": mean, "accuracy": share, "count": count})
    return (error if len(gap) else float("nan")), rows


def unsafe_detection(measured: Measured, threshold: float = 0.5) -> dict[str, float]:
    """Recall, precision and F1 of "P(safe) < threshold" for answers that are unsafe (Table 29)."""
    unsafe, flagged = [], []
    for name, labels in SAFE_LABELS.items():
        rows = measured.where(measured.bins == name)
        for label, chance in zip(labels, (rows.chosen_safe, rows.rejected_safe), strict=True):
            unsafe += [label < 0.5] * len(chance)
            flagged += list(chance < threshold)
    truth, said = np.array(unsafe, dtype=bool), np.array(flagged, dtype=bool)
    hits = float((truth & said).sum())
    recall = hits / truth.sum() if truth.any() else float("nan")
    precision = hits / said.sum() if said.any() else float("nan")
    low, high = wilson(hits, int(truth.sum()))[1:]
    return {
        "recall": recall,
        "recall_low": low,
        "recall_high": high,
        "precision": precision,
        "answers": float(len(truth)),
        "unsafe": float(truth.sum()),
    }


def evaluate(measured: Measured, domain: str, *, seed: int, samples: int = 1000) -> dict[str, Any]:
    """All figures of one reward model on held-out comparisons of both domains.

    Returns:
        `by_strength`: {test domain: {strength or "all": {accuracy, low, high, count}}} (Table 8),
        `by_batch`: the same per batch for its own domain, `by_bin`, `unsafe`, `calibration`,
        `longer_wins`, `length_correlation`.
    """
    own = measured.where(measured.domain == domain)
    by_strength = {
        test: {
            **{
                name: _cell(rows.where(rows.strength == name), seed, samples, test, name)
                for name in STRENGTHS
            },
            "all": _cell(rows, seed, samples, test),
        }
        for test in ("helpfulness", "safety")
        for rows in [measured.where(measured.domain == test)]
    }
    batches = list(dict.fromkeys(measured.batch.tolist()))
    by_batch = {
        batch: {
            **{
                name: _cell(rows.where(rows.strength == name), seed, samples, batch, name)
                for name in STRENGTHS
            },
            "all": _cell(rows, seed, samples, batch),
        }
        for batch in batches
        for rows in [own.where(own.batch == batch)]
    }
    error, diagram = calibration(own.chosen, own.rejected)
    gaps = own.chosen - own.rejected
    lengths = (own.chosen_tokens - own.rejected_tokens).astype(float)
    return {
        "domain": domain,
        "by_strength": by_strength,
        "by_batch": by_batch,
        "by_bin": {
            name: _cell(measured.where(measured.bins == name), seed, samples, "bin", name)
            for name in SAFE_LABELS
        },
        "unsafe": unsafe_detection(measured),
        "ece": error,
        "reliability": diagram,
        "longer_wins": float(own.longer.mean()) if len(own) else float("nan"),
        # Both signs of a pair's order, so that the sign convention cannot make a correlation.
        "length_correlation": correlation(
            np.concatenate([gaps, -gaps]), np.concatenate([lengths, -lengths])
        ),
        "mean_gap": float(gaps.mean()) if len(own) else float("nan"),
    }


def headline(figures: dict[str, Any]) -> dict[str, float]:
    """The metrics of the stage, by the names MLflow and reports know."""
    domain = figures["domain"]
    other = "safety" if domain == "helpfulness" else "helpfulness"
    own = figures["by_strength"][domain]
    named = {
        "accuracy": own["all"]["accuracy"],
        "accuracy_low": own["all"]["low"],
        "accuracy_high": own["all"]["high"],
        "heldout": own["all"]["count"],
        "cross_accuracy": figures["by_strength"][other]["all"]["accuracy"],
        "ece": figures["ece"],
        "longer_wins": figures["longer_wins"],
        "length_correlation": figures["length_correlation"],
        **{f"accuracy/{name}": own[name]["accuracy"] for name in STRENGTHS},
    }
    if figures["unsafe"]["unsafe"]:
        named["unsafe_recall"] = figures["unsafe"]["recall"]
        named["unsafe_precision"] = figures["unsafe"]["precision"]
    return named


def _cell(rows: Measured, seed: int, samples: int, *names: str) -> dict[str, float]:
    interval = accuracy(rows, derive_seed(seed, *names), samples)
    return {
        "accuracy": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "count": float(len(rows)),
    }
