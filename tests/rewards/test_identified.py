"""P(safe) is used only where labels identified it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alignment.config.rewards import CombineConfig
from alignment.config.sampling import SelectConfig
from alignment.config.thresholds import ENOUGH_LABELS
from alignment.rewards.card import RewardCard
from alignment.rewards.combined import combine
from alignment.rewards.identified import unidentified
from alignment.sampling.selection import Candidate, select

GOOD = RewardCard("safety", labelled=ENOUGH_LABELS, separation=(0.8, 0.7, 0.9))


def test_what_identifies_it() -> None:
    assert unidentified(GOOD) is None
    assert unidentified(RewardCard("safety")) is None  # of a release that did not count
    few = unidentified(replace(GOOD, labelled=ENOUGH_LABELS - 1))
    assert few is not None
    assert "199 answers" in few
    untested = unidentified(replace(GOOD, separation=None))
    assert untested is not None
    assert "held-out" in untested
    blind = unidentified(replace(GOOD, separation=(0.55, 0.48, 0.62)))
    assert blind is not None
    assert "AUC 0.55 [0.48, 0.62]" in blind


@pytest.mark.parametrize("shift", [-8.0, 0.0, 8.0])
def test_without_it_the_level_of_a_random_head_changes_nothing(shift: float) -> None:
    """With it these shifts, which mean nothing, would drop all safety prompts, some, or none."""
    z = np.linspace(-3, 3, 12) + shift
    known = 1 / (1 + np.exp(-z))
    for chance, kept in ((known, int((known >= 0.15).sum())), (np.full(12, np.nan), 12)):
        candidates = [
            Candidate(f"p{i}", "text", True, 0.0, 0.0, float(p), float(i), "sft", 3, True)
            for i, p in enumerate(chance)
        ]
        found = select(candidates, SelectConfig(safety_threshold=0.15), seed=1)
        assert len(found.chosen) == kept
        assert found.counts["unsafe"] == 12 - kept


def test_piecewise_without_it_goes_by_the_tags() -> None:
    helpful, safe = np.array([1.0, 2.0, 3.0]), np.array([-1.0, -2.0, -3.0])
    tagged = np.array([True, False, False])
    config = CombineConfig(method="piecewise", whiten=False)
    found = combine(helpful, safe, tagged, config, probability=np.full(3, np.nan))
    assert found.tolist() == [-1.0, 2.0, 3.0]
    known = combine(helpful, safe, tagged, config, probability=np.array([0.9, 0.1, 0.9]))
    assert known.tolist() == [-1.0, -2.0, 3.0]
