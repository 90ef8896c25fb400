"""Measures how sure reward models are about pairs that nobody has judged yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignment.config.compute import ComputeConfig
from alignment.models.load import resolve_device
from alignment.rewards.model import RewardModel
from alignment.utils.progress import Progress


def score_gaps(
    pairs: Sequence[Mapping[str, Any]],
    models: Mapping[str, Path],
    compute: ComputeConfig,
    progress: Progress,
) -> np.ndarray:
    """|r(first) − r(second)| (n,) in standard deviations, by the reward model of a pair's domain.

    In the Bradley-Terry model σ(Δr) a small gap is a probability near one half. A person's verdict
    on such a pair teaches the reward model most (uncertainty sampling).

    Args:
        pairs: rows of a `collect` stage's pairs.jsonl.
        models: domain → reward model directory.
    """
    gaps = np.zeros(len(pairs))
    device = resolve_device(compute.device)
    for domain, directory in models.items():
        numbers = [number for number, pair in enumerate(pairs) if pair["domain"] == domain]
        if not numbers:
            continue
        progress.begin(f"scoring with the {domain} reward model", len(numbers), "pairs")
        model = RewardModel.load(directory, dtype=compute.dtype, device=device)
        rows = [
            (pairs[number]["conversation"], side["text"], side.get("finished", True))
            for number in numbers
            for side in pairs[number]["responses"]
        ]
        scores = model.standardise(model.score_texts(rows)).reshape(-1, 2)
        gaps[numbers] = np.abs(scores[:, 0] - scores[:, 1])
        progress.advance(len(numbers))
    return gaps
