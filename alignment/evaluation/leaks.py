"""Finds evaluation prompts that leaked into the training data.

Evaluation prompts are set apart when a program's data are prepared, but a delivery of preferences
can contain one. A training conversation matches a prompt if it begins with it, ignoring case, white
space, punctuation and the spelling of accents.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.errors import StageError
from alignment.preferences.prompts import Prompt
from alignment.preferences.schema import plain
from alignment.preferences.store import PreferenceStore
from alignment.utils.files import read_json
from alignment.utils.json_lines import read_jsonl
from alignment.utils.progress import Progress

LEAKS = "leaks.json"
Conversation = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Leak:
    """An evaluation prompt in the training data."""

    prompt_id: str
    domain: str
    category: str
    found_in: str
    """`demonstrations`, `prompts`, or the id of a batch."""
    row: int
    """Number of the first matching conversation there, from 1."""


def training_conversations(
    prepare: Path, intakes: Iterable[Path], store: PreferenceStore
) -> Iterator[tuple[str, Conversation]]:
    """All conversations that a version may have been trained on: (place, conversation).

    Args:
        prepare: directory with demonstrations.jsonl and prompts.jsonl.
        intakes: directories with the batch.json of each version.
    """
    for name in ("demonstrations", "prompts"):
        path = prepare / f"{name}.jsonl"
        if path.is_file():
            for row in read_jsonl(path):
                yield name, row["messages"]
    for directory in intakes:
        for batch in read_json(directory / "batch.json")["batches"]:
            for comparison in store.training([batch["id"]]):
                yield batch["id"], comparison.conversation


def find_leaks(
    prompts: Iterable[Prompt], training: Iterable[tuple[str, Conversation]]
) -> list[Leak]:
    """Every prompt in the training data, once per place, sorted by prompt id and place."""
    by_key: dict[tuple[str, ...], list[Prompt]] = {}
    for prompt in prompts:
        by_key.setdefault(_key(prompt.messages), []).append(prompt)
    leaks: dict[tuple[str, str], Leak] = {}
    counts: dict[str, int] = {}
    for place, conversation in training:
        counts[place] = counts.get(place, 0) + 1
        key = _key(conversation)
        for end in range(1, len(key) + 1):
            for prompt in by_key.get(key[:end], ()):
                leak = Leak(prompt.id, prompt.domain, prompt.category, place, counts[place])
                leaks.setdefault((prompt.id, place), leak)
    return [leaks[key] for key in sorted(leaks)]


def without_leaks(
    prompts: Sequence[Prompt], leaks: Sequence[Leak], allowed: float, progress: Progress
) -> list[Prompt]:
    """The prompts that have not leaked; reports the others.

    Args:
        allowed: largest share of prompts that may be left out.

    Raises:
        StageError: more have leaked, so the evaluation would not be comparable with earlier ones.
    """
    if not leaks:
        return list(prompts)
    leaked = {leak.prompt_id for leak in leaks}
    places = ", ".join(
        f"{sum(leak.found_in == place for leak in leaks)} in {place}"
        f" (row {next(leak.row for leak in leaks if leak.found_in == place)} the first)"
        for place in dict.fromkeys(leak.found_in for leak in leaks)
    )
    message = (
        f"{len(leaked)} of {len(prompts)} evaluation prompts are in the training data: {places}"
    )
    if len(leaked) > allowed * len(prompts):
        raise StageError(
            message,
            where=f"prompt {leaks[0].prompt_id} ({leaks[0].domain} / {leaks[0].category})",
            remedy="deliver the batch again without them, or raise evaluate.max_leaked to leave "
            "them out of the evaluation",
        )
    progress.say(f"{message}; they are left out of the evaluation")
    return [prompt for prompt in prompts if prompt.id not in leaked]


def _key(conversation: Conversation) -> tuple[str, ...]:
    return tuple(f"{message['role']}: {plain(str(message['content']))}" for message in conversation)
