"""An invented program whose intake is the real one."""

from __future__ import annotations

from typing import Any

import pytest
from deliveries_of_people import RealIntake


@pytest.fixture
def real_intake(stages: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invented stages, but a real intake."""
    monkeypatch.setattr("alignment.execution.runner.importlib", RealIntake(stages))
