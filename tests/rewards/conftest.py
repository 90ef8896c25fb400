"""Trainings of a few steps are allowed here: they are compared, not learned from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for functions that a fresh process runs


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignment.models.enough_steps.FEWEST", 1)
