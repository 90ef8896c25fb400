"""The annotation round trip: pairs go out with random order and no provenance, verdicts come back.

What annotators must not see (which answer is whose, at which temperature) stays in the store as a
key: `annotation/<export id>.jsonl`, one line a task, under the task's opaque id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from alignment.preferences.readers.format import Keys

Tool = Literal["label-studio", "argilla", "jsonl"]


def load_keys(root: Path) -> Keys:
    """Every task that was ever exported from this store."""
    tasks: dict[str, Mapping[str, Any]] = {}
    directory = root / "annotation"
    for path in sorted(directory.glob("*.jsonl")) if directory.is_dir() else ():
        for line in path.read_text(encoding="utf-8").splitlines():
            task = json.loads(line)
            tasks[task["task"]] = task
    return Keys(tasks)
