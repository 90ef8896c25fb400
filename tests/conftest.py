"""Fixtures of all rooms."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Every library's telemetry is off, and nothing may look for a model hub.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="1",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    TOKENIZERS_PARALLELISM="false",
)
# Which passes pay is measured once a session, not read from the user's cache.
if "ALIGN_CACHE_DIR" not in os.environ:
    os.environ["ALIGN_CACHE_DIR"] = tempfile.mkdtemp(prefix="align-tests-")
    atexit.register(shutil.rmtree, os.environ["ALIGN_CACHE_DIR"], ignore_errors=True)
# Small models gain nothing from a second thread, and threads that wait for a busy core cost much.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# On a busy machine the first example of a test takes longer than the usual 200 ms.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# `make test` has three workers: each room is one's work, and the longest come first.
LONGEST = (
    *("soak", "loop", "tracking", "ppo", "flows", "operations", "preferences", "rewards"),
    *("reporting", "training", "fuzz", "evaluation", "pipeline", "utils", "sampling"),
)


def room_of(nodeid: str) -> str:
    """`flows` of tests/flows/test_deployed.py::test_name."""
    return nodeid.split("/")[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(room_of(item.nodeid), len(places)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A room's tests stay together, so that what they share is made once; random input shares
    nothing, and all of it together would be one worker's hours in `make fuzz`."""
    from xdist.scheduler import LoadScopeScheduling

    class Rooms(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            room = room_of(nodeid)
            return nodeid if room == "fuzz" else room

    return Rooms(config, log)


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


def _taking(way: str, monkeypatch: pytest.MonkeyPatch, directory: Path) -> Iterator[str]:
    from alignment.fastpath import choice

    monkeypatch.setattr(choice, "measured", lambda *_: choice.Choice(True, 2.0))
    monkeypatch.setenv("ALIGN_CACHE_DIR", str(directory / "cache"))
    monkeypatch.setenv("ALIGN_FAST_CPU", "off" if way == "plain" else "auto")
    with choice.choosing("off" if way == "plain" else "auto"):
        yield way


@pytest.fixture(params=["fast", "plain"])
def way(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """`fast`: hand-written passes wherever they cover a model; `plain`: they are switched off."""
    yield from _taking(request.param, monkeypatch, tmp_path_factory.mktemp("way"))


@pytest.fixture
def fast(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Hand-written passes wherever they cover a model, whatever the environment says."""
    yield from _taking("fast", monkeypatch, tmp_path_factory.mktemp("fast"))


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The runner uses invented stages that take no time."""
    from fake_program import FakeStages

    made = FakeStages()
    monkeypatch.setattr("alignment.execution.runner.importlib", made)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return made


@pytest.fixture
def make_program(tmp_path: Path) -> Any:
    """`make_program(versions=2, **settings)` in a fresh workspace."""
    from fake_program import fake_program

    return lambda **values: fake_program(tmp_path / "workspace", **values)
