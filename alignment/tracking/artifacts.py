"""Which files of a stage go into MLflow: what a person reads, never weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignment.tracking.history import VersionHistory

READABLE = {".png", ".svg", ".html", ".md", ".csv", ".json", ".txt", ".yaml"}
PICTURES = {".png", ".svg", ".html"}


def readable_files(directory: Path, limit_mb: float) -> list[Path]:
    """Files of a stage that go into its run: pictures, tables and reports up to a size."""
    found = []
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory)
        if relative.parts[0] in ("model", "arrivals") or path.suffix not in READABLE:
            continue
        if path.is_file() and path.stat().st_size <= limit_mb * 1e6:
            found.append(path)
    return found


def log_files(client: Any, run_id: str, directory: Path, limit_mb: float) -> None:
    """Copy a stage's readable files into its run; again is harmless."""
    for path in readable_files(directory, limit_mb):
        folder = path.relative_to(directory).parent.as_posix()
        client.log_artifact(run_id, str(path), None if folder == "." else folder)


def version_pictures(client: Any, run_id: str, history: VersionHistory) -> None:
    """Put the pictures of a version's stages on the version's own page."""
    for stage, directory in history.directories.items():
        for path in sorted(directory.glob("*")):
            if path.suffix in PICTURES and path.is_file():
                client.log_artifact(run_id, str(path), stage)
