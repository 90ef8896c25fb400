"""Fixtures of the tracking tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

_spec = importlib.util.spec_from_file_location(
    "fake_program", Path(__file__).with_name("fake_program.py")
)
assert _spec is not None
assert _spec.loader is not None
fake = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The runner uses invented stages that take no time."""
    made = fake.FakeStages()
    monkeypatch.setattr("alignment.runner.importlib", made)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return made


@pytest.fixture
def make_program(tmp_path: Path) -> Any:
    """`make_program(versions=2, **settings)` in a fresh workspace."""
    return lambda **values: fake.fake_program(tmp_path / "workspace", **values)


@pytest.fixture
def run_all() -> Any:
    """Every stage of a program, in plain Python."""
    return fake.run_all
