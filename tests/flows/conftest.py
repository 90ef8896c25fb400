"""Fixtures of the flow tests: invented stages, and a Prefect server for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_program as fake
import pytest
from served_run import keep_program


@pytest.fixture(scope="session")
def server() -> Iterator[None]:
    """A Prefect server with an empty database."""
    from flows.servers.prefect_environment import QUIET

    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUIET.items():
            if name != "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE":
                patch.setenv(name, value)
        from prefect.testing.utilities import prefect_test_harness

        with prefect_test_harness(server_startup_timeout=180):
            yield


@pytest.fixture
def program(tmp_path: Path) -> Any:
    """A program of one version."""
    return fake.fake_program(tmp_path / "workspace", versions=1)


@pytest.fixture
def kept(program: Any) -> Any:
    """The program as a deployment finds it: written down in its workspace, tracking off."""
    keep_program(program)
    return program
