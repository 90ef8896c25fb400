"""Records of annotation exports: which tasks went out, and how many came back judged.

preferences/annotation/
  1f0c2a9b7d4e.jsonl   the key, one line per task: texts, order, provenance, id of the pair
  1f0c2a9b7d4e.json    the record, written once the tasks are exported
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alignment.errors import DataError, StoreError
from alignment.preferences.readers.format import TaskKeys
from alignment.preferences.schema import comparison_id
from alignment.preferences.store import PreferenceStore, except_rows, read_index
from alignment.preferences.what_counts import excluded_rows
from alignment.utils.files import atomic_write_json, atomic_write_text, canonical_json, read_object
from alignment.utils.json_lines import read_jsonl

Tool = Literal["label-studio", "argilla", "jsonl"]


@dataclass(frozen=True)
class Export:
    """Tasks that were exported together.

    Attributes:
        file: where it was written; it may have moved since.
        settings: file with the labelling interface or the questions, for tools that need one.
        version: the version whose `collect` stage sampled the pairs.
        selection: `random` or `uncertain`.
        judged: tasks with a verdict in some batch. Ties and skipped tasks have none.
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
        settings = None if self.settings is None else str(self.settings)
        return asdict(self) | {"file": str(self.file), "settings": settings}


def write_task_keys(root: Path, name: str, tasks: Sequence[Mapping[str, Any]]) -> None:
    """Save the key of an export, which annotators must not see, in the store at `root`."""
    path = root / "annotation" / f"{name}.jsonl"
    atomic_write_text(path, "".join(canonical_json(task) + "\n" for task in tasks))


def write_export_record(root: Path, export: Export) -> None:
    """Record that these tasks were exported."""
    values = export.to_dict() | {"when": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    values = {name: value for name, value in values.items() if name not in ("judged", "settings")}
    # The name only: a workspace may be copied to another machine.
    atomic_write_json(
        root / "annotation" / f"{export.id}.json", values | {"file": export.file.name}
    )


def load_keys(root: Path) -> TaskKeys:
    """The keys of all tasks ever exported from the store at `root`.

    Raises:
        StoreError: a key file is damaged.
    """
    paths = sorted((root / "annotation").glob("*.jsonl"))
    return {task["task"]: task for path in paths for task in _read_key(path)}


def exported_pairs(root: Path) -> set[str]:
    """Ids of the pairs that were exported before."""
    return {
        task["pair"]
        for path in (root / "annotation").glob("*.json")
        for task in _read_key(path.with_suffix(".jsonl"))
        if "pair" in task
    }


def export_ids(root: Path) -> set[str]:
    """The ids of all exports of the store at `root`."""
    return {path.stem for path in (root / "annotation").glob("*.json")}


def list_exports(store: PreferenceStore) -> list[Export]:
    """All exports, oldest first, with the number of tasks judged since."""
    standing = judged_ids(store)
    exports = []
    for path in (store.root / "annotation").glob("*.json"):
        record = read_object(path)
        key = _read_key(path.with_suffix(".jsonl"))
        texts = [(task["first"]["text"], task["second"]["text"]) for task in key]
        judged = int(judged_mask(standing, key, texts).sum())
        known = {"file": Path(record["file"]), "settings": None, "judged": judged}
        exports.append(Export(**record | known))
    return sorted(exports, key=lambda export: (export.when, export.id))


def judged_ids(store: PreferenceStore) -> np.ndarray:
    """Sorted ids (n,) of all comparisons that count."""
    excluded = excluded_rows(store)
    found = [np.zeros(0, np.uint64)]
    for batch in store.known():
        if batch.withdrawal is None:
            ids = read_index(batch).column("id").to_numpy()
            found.append(ids[except_rows(np.ones(len(ids), bool), excluded.get(batch.id, ()))])
    return np.unique(np.concatenate(found))


def judged_mask(
    standing: np.ndarray,
    pairs: Sequence[Mapping[str, Any]],
    answers: Sequence[tuple[str, str]],
) -> np.ndarray:
    """Mask (n,) of the pairs that some batch has a verdict on, whichever answer won.

    Args:
        standing: comparison ids, see `judged_ids`.
        pairs: `domain` and `conversation` of each pair.
        answers: the two texts of each pair.
    """
    ids = [
        [
            int(comparison_id(pair["domain"], pair["conversation"], chosen, rejected), 16)
            for chosen, rejected in ((first, second), (second, first))
        ]
        for pair, (first, second) in zip(pairs, answers, strict=True)
    ]
    is_judged = np.isin(np.array(ids, dtype=np.uint64).reshape(-1, 2), standing)
    return np.logical_or(is_judged[:, 0], is_judged[:, 1])


def _read_key(path: Path) -> list[dict[str, Any]]:
    try:
        tasks = read_jsonl(path)
        if not all("task" in task for task in tasks):
            raise ValueError("a line is not a task")
        return tasks
    except (OSError, ValueError, DataError) as error:
        raise StoreError(
            f"the key of an export is damaged: {error}",
            where=str(path),
            remedy="restore it from a copy; without it the labels cannot come back",
        ) from error
