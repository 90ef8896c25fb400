"""Which pairs the reward models are least sure about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignment.config.compute import ComputeConfig
from alignment.rewards.uncertainty import score_gaps
from alignment.utils.progress import SilentProgress


class Toy:
    """Scores an answer by its length, in units of its own."""

    def __init__(self, unit: float):
        self._unit = unit

    def score_texts(self, rows: list[tuple[Any, str, bool]]) -> np.ndarray:
        assert all(finished for _, _, finished in rows)
        return np.array([100.0 + len(text) for _, text, _ in rows])

    def standardise(self, raw: np.ndarray) -> np.ndarray:
        return (raw - 7.0) / self._unit


def pair(domain: str, *answers: str) -> dict[str, Any]:
    return {
        "conversation": [{"role": "user", "content": "q"}],
        "responses": [{"text": text} for text in answers],
        "domain": domain,
    }


def test_gaps_are_absolute_and_in_the_units_of_the_pairs_own_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    units = {"h": 2.0, "s": 4.0}
    asked: list[str] = []

    def load(directory: Path, **_: Any) -> Toy:
        asked.append(str(directory))
        return Toy(units[str(directory)])

    monkeypatch.setattr("alignment.rewards.uncertainty.RewardModel.load", load)
    pairs = [
        pair("safety", "aaaa", "aa"),
        pair("helpfulness", "a", "aaaaaaa"),
        pair("safety", "a", "aaaaaaaaa"),
        pair("helpfulness", "aa", "aa"),
    ]
    models = {"helpfulness": Path("h"), "safety": Path("s")}
    gaps = score_gaps(pairs, models, ComputeConfig(device="cpu"), SilentProgress())
    assert gaps.tolist() == [2 / 4, 6 / 2, 8 / 4, 0.0]
    asked.clear()
    assert score_gaps(pairs[:1], models, ComputeConfig(device="cpu"), SilentProgress()) == [0.5]
    assert asked == ["s"]  # no model is loaded for nothing
