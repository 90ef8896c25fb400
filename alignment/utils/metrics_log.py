"""Training curves as JSON lines, step → named figures, without duplicates after a resume."""

from __future__ import annotations

from pathlib import Path

from alignment.utils.json_lines import json_line, read_appended, write_jsonl


class Series:
    """Append-only curve file of one stage.

    On resume call `truncate(step)` with the step of the loaded checkpoint. It drops later lines, so
    that an interrupted run's file ends up byte-identical to an uninterrupted one's. Never log wall
    times: outputs must not depend on the clock.
    """

    def __init__(self, path: Path):
        self.path = path

    def log(self, step: int, **figures: float) -> None:
        """Append one line; figures are rounded to 6 significant digits."""
        row = {"step": step, **{name: float(f"{value:.6g}") for name, value in figures.items()}}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json_line(row))

    def truncate(self, step: int) -> None:
        """Keep only the lines with a step ≤ `step`; a half-written last line is dropped."""
        rows = [row for row in self.rows() if row["step"] <= step]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(self.path, rows)

    def rows(self) -> list[dict[str, float]]:
        """All complete lines, in order."""
        return read_appended(self.path)
