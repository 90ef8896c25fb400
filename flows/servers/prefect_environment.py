"""Prefect's settings for a workspace: its own folder, quiet, on loopback, nothing sent anywhere.

Import this before Prefect, which reads its settings once, on import.
"""

import os
from pathlib import Path

from alignment.utils.loopback import spare_loopback

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_CLI_PROMPT": "false",
    # Run logs belong in Prefect's pages; on the terminal the user has the progress bar.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    # We start servers ourselves, so that they die with us and their output goes into a file.
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
}

IDLE_SERVICES = ("SCHEDULER", "LATE_RUNS", "FOREMAN", "PAUSE_EXPIRATIONS", "TRIGGERS")
"""Server services that a run without deployments does not need."""


def home(workspace: Path) -> Path:
    """Prefect's folder in a workspace."""
    return workspace.resolve() / "prefect"


def client_environment(workspace: Path) -> dict[str, str]:
    """Settings of every process that talks to Prefect."""
    folder = home(workspace)
    return {
        **QUIET,
        "PREFECT_HOME": str(folder),
        "PREFECT_LOCAL_STORAGE_PATH": str(folder / "results"),
    }


def server_environment(workspace: Path, port: int, *, embedded: bool) -> dict[str, str]:
    """Settings of a Prefect server.

    Args:
        embedded: for one run only: no pages, and none of the services that only deployments need.
    """
    settings = {
        **client_environment(workspace),
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
    }
    if embedded:
        settings["PREFECT_UI_ENABLED"] = "false"
        settings["PREFECT_API_BLOCKS_REGISTER_ON_START"] = "false"
        for service in IDLE_SERVICES:
            settings[f"PREFECT_SERVER_SERVICES_{service}_ENABLED"] = "false"
    return settings


def enter(workspace: Path, api_url: str) -> None:
    """Point this process at a server; to be called before Prefect is imported."""
    spare_loopback()
    os.environ.update(client_environment(workspace))
    os.environ["PREFECT_API_URL"] = api_url
