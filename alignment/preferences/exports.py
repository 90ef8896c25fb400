"""What was handed out to annotators, and what came back.

preferences/annotation/
  1f0c2a9b7d4e.jsonl   the key, one line a task: texts, order, provenance, whose pair it is
  1f0c2a9b7d4e.json    the record, written when the tasks were handed out
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alignment.errors import StoreError
from alignment.preferences.readers.format import Keys
from alignment.preferences.schema import comparison_id
from alignment.preferences.store import PreferenceStore
from alignment.utils.files import atomic_write_json, atomic_write_text, canonical_json, read_json

Tool = Literal["label-studio", "argilla", "jsonl"]


@dataclass(frozen=True)
class Export:
    """Tasks that were handed out together.

    Attributes:
        file: as it was written; it may have moved since.
        settings: labelling interface or questions, for the tools that need them.
        version: whose `collect` sampled the pairs.
        selection: `random` or `uncertain`.
        judged: tasks whose verdict stands in a batch. Ties and skipped ones do not.
    """

    id: str
    tasks: int
    file: Path
    settings: Path | None
    tool: Tool
    version: str | None
    selection: str
    when: str = ""
    judged: int = 0

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "id": self.id,
            "version": self.version,
            "tool": self.tool,
            "selection": self.selection,
            "tasks": self.tasks,
            "judged": self.judged,
            "file": str(self.file),
            "settings": None if self.settings is None else str(self.settings),
            "when": self.when,
        }


def keep_key(root: Path, name: str, tasks: Sequence[Mapping[str, Any]]) -> None:
    """Keep what must not be seen, in the store at `root`."""
    path = root / "annotation" / f"{name}.jsonl"
    atomic_write_text(path, "".join(canonical_json(task) + "\n" for task in tasks))


def keep_record(root: Path, export: Export) -> None:
    """Note that these tasks were handed out."""
    values = export.to_dict() | {"when": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    values = {name: value for name, value in values.items() if name not in ("judged", "settings")}
    # Not where it was written: a workspace may be copied to another machine.
    atomic_write_json(
        root / "annotation" / f"{export.id}.json", values | {"file": export.file.name}
    )


def load_keys(root: Path) -> Keys:
    """Every task that was ever exported from the store at `root`.

    Raises:
        StoreError: a key is damaged.
    """
    tasks: dict[str, Mapping[str, Any]] = {}
    directory = root / "annotation"
    for path in sorted(directory.glob("*.jsonl")) if directory.is_dir() else ():
        for task in _read_key(path):
            tasks[task["task"]] = task
    return Keys(tasks)


def exported_pairs(root: Path) -> set[str]:
    """Ids of the pairs that were handed out before."""
    directory = root / "annotation"
    return {
        task["pair"]
        for path in (sorted(directory.glob("*.json")) if directory.is_dir() else ())
        for task in _read_key(path.with_suffix(".jsonl"))
        if "pair" in task
    }


def list_exports(store: PreferenceStore) -> list[Export]:
    """Everything that was handed out, oldest first, with what came back of it."""
    directory = store.root / "annotation"
    records = sorted(directory.glob("*.json")) if directory.is_dir() else []
    if not records:
        return []
    standing = verdicts(store)
    found = []
    for path in records:
        values = read_json(path)
        key = _read_key(path.with_suffix(".jsonl"))
        texts = [(task["first"]["text"], task["second"]["text"]) for task in key]
        found.append(
            Export(
                values["id"],
                values["tasks"],
                Path(values["file"]),
                None,
                values["tool"],
                values["version"],
                values["selection"],
                values["when"],
                int(judged(standing, key, texts).sum()),
            )
        )
    return sorted(found, key=lambda export: (export.when, export.id))


def verdicts(store: PreferenceStore) -> np.ndarray:
    """Ids (n,) of all comparisons that stand, sorted."""
    return np.unique(store.index(store.standing())["id"])


def judged(
    standing: np.ndarray,
    pairs: Sequence[Mapping[str, Any]],
    answers: Sequence[tuple[str, str]],
) -> np.ndarray:
    """Mask (n,) of the pairs on which a verdict, either way, stands in a batch.

    Args:
        standing: see `verdicts`.
        pairs: `domain` and `conversation` of each.
        answers: the two texts of each.
    """
    ids = [
        [
            int(comparison_id(pair["domain"], pair["conversation"], chosen, rejected), 16)
            for chosen, rejected in ((first, second), (second, first))
        ]
        for pair, (first, second) in zip(pairs, answers, strict=True)
    ]
    found = np.isin(np.array(ids, dtype=np.uint64).reshape(-1, 2), standing)
    return np.logical_or(found[:, 0], found[:, 1])


def _read_key(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            tasks = [json.loads(line) for line in file]
        if not all(isinstance(task, dict) and "task" in task for task in tasks):
            raise ValueError("a line is no task")
        return tasks
    except (OSError, ValueError) as error:
        raise StoreError(
            f"the key of an export is damaged: {error}",
            where=str(path),
            remedy="restore it from a copy; without it the labels cannot come back",
        ) from error
