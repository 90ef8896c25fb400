"""Fixtures of all rooms."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

# Every library's telemetry is off, and nothing may look for a model hub.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="1",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    TOKENIZERS_PARALLELISM="false",
)
# Small models gain nothing from a second thread, and threads that wait for a busy core cost much.
os.environ.setdefault("OMP_NUM_THREADS", "1")

HERE = Path(__file__).resolve().parent
# `make test` has two workers: each room is one's work, and the longest come first.
LONGEST = ("soak", "loop", "tracking", "flows", "ppo", "training", "sampling", "rewards")


@pytest.hookimpl(wrapper=True)  # before the workers read the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """Rooms as groups for the workers; fixtures of a session are made once a room, not twice."""

    def room(item: pytest.Item) -> str:
        return item.path.relative_to(HERE).parts[0]

    for item in items:
        item.add_marker(pytest.mark.xdist_group(room(item)))
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(room(item), len(places)))
    yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and data beside the checkout; skips with a reason without it."""
    root = Path(__file__).resolve().parents[1]
    path = Path(os.environ.get("ALIGN_SHARED", root.parent / "shared"))
    if not (path / "data").is_dir():
        pytest.skip(f"real data not found at {path} (set ALIGN_SHARED)")
    return path


@pytest.fixture(scope="session")
def stories(shared: Path) -> Path:
    """A real pretrained Llama of 260K parameters."""
    return shared / "models" / "stories260k"


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The runner uses invented stages that take no time."""
    from fake_program import FakeStages

    made = FakeStages()
    monkeypatch.setattr("alignment.runner.importlib", made)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return made
