"""Trainings of a few steps are allowed here: they are compared, not learned from."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignment.models.enough_steps.FEWEST", 1)
