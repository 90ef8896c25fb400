"""Which files of a stage go into MLflow: what a person reads, never weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from alignment.tracking.history import VersionHistory

READABLE = {".png", ".svg", ".html", ".md", ".csv", ".json", ".txt", ".yaml"}
LARGEST = 4e6  # bytes
PICTURES = {".png", ".svg", ".html"}


def readable_files(directory: Path) -> list[Path]:
    """Files of a stage that go into its run: pictures, tables and reports up to a size."""
    paths = []
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory)
        if relative.parts[0] in ("model", "arrivals") or path.suffix not in READABLE:
            continue
        if path.is_file() and path.stat().st_size <= LARGEST:
            paths.append(path)
    return paths


def log_files(client: Any, run_id: str, directory: Path) -> None:
    """Copy a stage's readable files into its run; again is harmless."""
    for path in readable_files(directory):
        folder = path.relative_to(directory).parent.as_posix()
        client.log_artifact(run_id, str(path), None if folder == "." else folder)


def version_pictures(client: Any, run_id: str, history: VersionHistory) -> None:
    """Put the pictures of a version's stages on the version's own page."""
    for stage, directory in history.directories.items():
        for path in sorted(directory.glob("*")):
            if path.suffix in PICTURES and path.is_file():
                client.log_artifact(run_id, str(path), stage)


SAMPLES = "samples.json"
SAMPLES_TAG = json.dumps([{"path": SAMPLES, "type": "table"}])
SAMPLE_ROWS = 60


def log_samples(client: Any, run_id: str, history: VersionHistory) -> bool:
    """A table of answers on the version's run, which MLflow shows beside those of other versions
    (run table, third view); whether there are answers.

    The same prompts for every version: the lowest ids, which are digests.
    """
    directory = history.directories.get("evaluate")
    if directory is None or not (directory / "responses.parquet").is_file():
        return False
    from alignment.evaluation.responses import TEXTS, read_table
    from alignment.preferences.prompts import read_prompts

    questions = {
        prompt.id: prompt.messages[-1]["content"]
        for prompt in read_prompts(directory / "prompts.jsonl")
    }
    table = read_table(directory / TEXTS)
    own = table[table.side == history.version].sort_values("prompt_id").head(SAMPLE_ROWS)
    rows = [
        [questions.get(row.prompt_id, row.prompt_id), row.text, f"{row.domain} / {row.category}"]
        for row in own.itertuples(index=False)
    ]
    values = {"columns": ["prompt", "answer", "category"], "data": rows}
    client.log_text(run_id, json.dumps(values, ensure_ascii=False), SAMPLES)
    return True
