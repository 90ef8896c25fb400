"""Is an evaluation prompt among what was trained on?

The prompts of an evaluation are fixed and kept apart when a program's data are prepared; a delivery
of preferences can bring one back all the same. A conversation matches if it is the prompt, or goes
on from it; case and white space do not count.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignment.errors import StageError
from alignment.preferences.prompts import Prompt
from alignment.preferences.store import PreferenceStore
from alignment.utils.files import read_json
from alignment.utils.progress import Progress

LEAKS = "leaks.json"
Conversation = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Leak:
    """An evaluation prompt, and where it stands in the training data."""

    prompt_id: str
    domain: str
    category: str
    found_in: str
    """`demonstrations`, `prompts`, or the id of a batch."""
    row: int
    """Which conversation of it, from 1; the first one where there are several."""


def training_conversations(
    prepare: Path, intakes: Iterable[Path], store: PreferenceStore
) -> Iterator[tuple[str, Conversation]]:
    """Everything a version so far may have been trained on: (where it stands, conversation).

    Args:
        prepare: directory with demonstrations.jsonl and prompts.jsonl.
        intakes: directories with the batch.json of each version.
    """
    for name in ("demonstrations", "prompts"):
        path = prepare / f"{name}.jsonl"
        if path.is_file():
            with path.open(encoding="utf-8") as file:
                for line in file:
                    yield name, json.loads(line)["messages"]
    for directory in intakes:
        for batch in read_json(directory / "batch.json")["batches"]:
            for comparison in store.training([batch["id"]]):
                yield batch["id"], comparison.conversation


def find_leaks(
    prompts: Iterable[Prompt], training: Iterable[tuple[str, Conversation]]
) -> list[Leak]:
    """Every prompt that stands in the training data, once for each place, in order of prompts."""
    wanted: dict[tuple[str, ...], list[Prompt]] = {}
    for prompt in prompts:
        wanted.setdefault(_key(prompt.messages), []).append(prompt)
    found: dict[tuple[str, str], Leak] = {}
    counts: dict[str, int] = {}
    for place, conversation in training:
        counts[place] = counts.get(place, 0) + 1
        key = _key(conversation)
        for end in range(1, len(key) + 1):
            for prompt in wanted.get(key[:end], ()):
                leak = Leak(prompt.id, prompt.domain, prompt.category, place, counts[place])
                found.setdefault((prompt.id, place), leak)
    return [found[key] for key in sorted(found)]


def without_leaks(
    prompts: Sequence[Prompt], leaks: Sequence[Leak], allowed: float, progress: Progress
) -> list[Prompt]:
    """The prompts that nothing was trained on; says which are left out and where they stand.

    Raises:
        StageError: more than the share `allowed` has leaked, so that what is left is no longer the
            evaluation that the versions before had.
    """
    if not leaks:
        return list(prompts)
    leaked = {leak.prompt_id for leak in leaks}
    places = ", ".join(
        f"{sum(leak.found_in == place for leak in leaks)} in {place}"
        f" (row {next(leak.row for leak in leaks if leak.found_in == place)} the first)"
        for place in dict.fromkeys(leak.found_in for leak in leaks)
    )
    said = (
        f"{len(leaked)} of {len(prompts)} evaluation prompts stand in the training data: {places}"
    )
    if len(leaked) > allowed * len(prompts):
        raise StageError(
            said,
            where=f"prompt {leaks[0].prompt_id} ({leaks[0].domain} / {leaks[0].category})",
            remedy="deliver the batch again without them, or raise evaluate.max_leaked to leave "
            "them out of the evaluation",
        )
    progress.say(f"{said}; they are left out of the evaluation")
    return [prompt for prompt in prompts if prompt.id not in leaked]


def leak_rows(leaks: Sequence[Leak]) -> list[dict[str, Any]]:
    """As JSON."""
    return [asdict(leak) for leak in leaks]


def _key(conversation: Conversation) -> tuple[str, ...]:
    return tuple(
        f"{message['role']}: {' '.join(str(message['content']).lower().split())}"
        for message in conversation
    )
