"""The annotation round trip: pairs go out in random order without provenance, verdicts come back.

The provenance of the answers (version and temperature) is hidden from annotators. It stays in the
store as a key (see `exports`). `align ingest` looks the key up by the task's opaque id and restores
texts, order and provenance, whatever the tool did to them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.config.vocabulary import STRENGTHS
from alignment.errors import AlignError, DataError
from alignment.preferences.exports import (
    Export,
    Tool,
    export_ids,
    write_export_record,
    write_task_keys,
)
from alignment.preferences.readers.verdicts import TASK
from alignment.preferences.schema import text_digest
from alignment.preferences.store import PreferenceStore
from alignment.utils.files import atomic_write_text, digest_json
from alignment.utils.json_lines import json_line
from alignment.utils.seeds import derive_seed

Uncertainty = Callable[[Mapping[str, Any]], float]
"""Uncertainty of the reward model about a row of pairs.jsonl; the largest are exported first."""


def _text_field(name: str, title: str) -> dict[str, Any]:
    settings = {"type": "text", "use_markdown": False}
    return {"name": name, "title": title, "required": True, "settings": settings}


def _question(
    name: str, title: str, labels: Sequence[str], required: bool = True
) -> dict[str, Any]:
    options = [{"value": label, "text": label, "description": None} for label in labels]
    settings = {"type": "label_selection", "options": options, "visible_options": None}
    return {"name": name, "title": title, "required": required, "settings": settings}


GUIDELINES: dict[str, str] = {
    "helpfulness": "Helpfulness: which answer does more of what the person asks for?",
    "safety": "Safety: which answer is safer? Say of each answer whether it is safe.",
}
"""Domain → what annotators are asked to judge."""

VIEW = "label_studio_pairs.xml"
"""Labelling interface for a Label Studio project that reads our export: nothing can be submitted
without a side, and everything can be done with the keyboard."""

ARGILLA_SETTINGS = {
    "guidelines": " ".join(GUIDELINES.values()),
    "allow_extra_metadata": True,
    "distribution": {"strategy": "overlap", "min_submitted": 1},
    "fields": [
        _text_field("instruction", "Guideline"),
        _text_field("prompt", "Conversation"),
        _text_field("answer1", "Answer 1"),
        _text_field("answer2", "Answer 2"),
    ],
    "questions": [
        _question("preference", "Which is better?", ["answer1", "answer2", "tie"]),
        _question("strength", "How much?", list(STRENGTHS), required=False),
        _question("safety1", "Answer 1 is", ["safe", "unsafe"], required=False),
        _question("safety2", "Answer 2 is", ["safe", "unsafe"], required=False),
    ],
    "metadata": [],
    "vectors": [],
}
"""What `argilla.Settings.from_json` reads: fields and questions of a dataset for our export."""


def export_tasks(
    store: PreferenceStore,
    pairs: Sequence[Mapping[str, Any]],
    tool: Tool,
    out: Path,
    *,
    seed: int,
    limit: int | None = None,
    uncertainty: Uncertainty | None = None,
    version: str | None = None,
) -> Export:
    """Write pairs for annotation and keep their key in the store.

    Args:
        pairs: rows of a `collect` stage's pairs.jsonl.
        out: file to write, or a directory, in which the file is named after the export's id.
        seed: decides which pairs are drawn and the order of the two answers.
        limit: maximum number of pairs: a random draw, or the most uncertain ones.
        uncertainty: see `Uncertainty`; None draws at random.
        version: the version whose `collect` stage made the pairs, for the record.

    Raises:
        DataError: there are no pairs.
        AlignError: `out` exists with other content (perhaps somebody's work), or cannot be written.
    """
    chosen = _select(pairs, seed, limit, uncertainty)
    if not chosen:
        raise DataError(
            "there are no pairs to annotate",
            remedy="run a version's collect stage first, with collect.pairs above 0",
        )
    tasks = [_task(pair, seed) for pair in chosen]
    name = digest_json([task["task"] for task in tasks])[:12]
    named = out.is_dir()
    if named:
        out = out / f"annotate-{name}.{'jsonl' if tool == 'jsonl' else 'json'}"
    text, settings = _file_contents(tasks, tool, out)
    try:
        edited = out.exists() and out.read_text(encoding="utf-8") != text
        # By its name it is this export, of a process that died before the record; people have
        # begun to fill it in since.
        begun = edited and named and tool == "jsonl" and name not in export_ids(store.root)
        if edited and not begun:
            raise AlignError(
                f"{out} exists, perhaps with somebody's verdicts in it",
                remedy="name another file; nothing is overwritten",
            )
        # The key goes first: an export without a key could never be read back, whereas a key
        # without an export is harmless. The record goes last: without one, the pairs do not count
        # as exported and are offered again.
        write_task_keys(store.root, name, tasks)
        if settings is not None:
            atomic_write_text(*settings)
        if not begun:
            atomic_write_text(out, text)
        done = Export(
            name,
            len(tasks),
            out,
            None if settings is None else settings[0],
            tool,
            version,
            "random" if uncertainty is None else "uncertain",
        )
        write_export_record(store.root, done)
    except OSError as error:
        raise AlignError(f"cannot write the pairs: {error}", where=str(out)) from error
    return done


def _file_contents(
    tasks: Sequence[Mapping[str, Any]], tool: Tool, out: Path
) -> tuple[str, tuple[Path, str] | None]:
    """Text of the annotators' file; path and text of the tool's settings file, if it has one."""
    if tool == "label-studio":
        rows = json.dumps([_label_studio(task) for task in tasks], indent=1, ensure_ascii=False)
        view = (Path(__file__).parent / VIEW).read_text(encoding="utf-8")
        return rows + "\n", (out.with_suffix(".xml"), view)
    if tool == "argilla":
        rows = json.dumps([_argilla(task) for task in tasks], indent=1, ensure_ascii=False)
        settings = json.dumps(ARGILLA_SETTINGS, indent=1) + "\n"
        return rows + "\n", (out.with_suffix(".settings.json"), settings)
    return "".join(json_line(_plain(task)) for task in tasks), None


def _select(
    pairs: Sequence[Mapping[str, Any]],
    seed: int,
    limit: int | None,
    uncertainty: Uncertainty | None,
) -> list[Mapping[str, Any]]:
    shuffled = list(pairs)
    random.Random(derive_seed(seed, "annotation")).shuffle(shuffled)
    if uncertainty is not None:
        shuffled.sort(key=uncertainty, reverse=True)  # stable: equals stay in random order
    return shuffled[:limit]


def _task(pair: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """One line of the key: the texts in the order shown, and who wrote them."""
    first, second = pair["responses"]
    conversation = list(pair["conversation"])
    spoken = [part for turn in conversation for part in (turn["role"], turn["content"])]
    # A digest: the id reveals nothing about the pair.
    name = "align-" + text_digest([str(seed), *spoken, first["text"], second["text"]])[:20]
    if random.Random(derive_seed(seed, "order", name)).random() < 0.5:
        first, second = second, first
    return {
        "task": name,
        "pair": pair["id"],
        "conversation": conversation,
        "first": _side(first),
        "second": _side(second),
        "domain": pair["domain"],
        "category": pair.get("category"),
    }


def _side(response: Mapping[str, Any]) -> dict[str, Any]:
    by = None
    if response.get("version") is not None:
        by = {
            "version": response["version"],
            "temperature": response.get("temperature", 1.0),
            "finished": response.get("finished", True),
        }
    return {"text": response["text"], "by": by}


def _label_studio(task: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "data": {
            TASK: task["task"],
            "instruction": GUIDELINES[task["domain"]],
            "transcript": transcript_of(task["conversation"]),
            "conversation": task["conversation"],  # for an interface of one's own
            "answer1": task["first"]["text"],
            "answer2": task["second"]["text"],
        }
    }


def _argilla(task: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": task["task"],
        "fields": {
            "instruction": GUIDELINES[task["domain"]],
            "prompt": transcript_of(task["conversation"]),
            "answer1": task["first"]["text"],
            "answer2": task["second"]["text"],
        },
        "metadata": {},
        "responses": {},
    }


def _plain(task: Mapping[str, Any]) -> dict[str, Any]:
    return {
        TASK: task["task"],
        "conversation": task["conversation"],
        "answer1": task["first"]["text"],
        "answer2": task["second"]["text"],
        "preference": "",
        "strength": "",
        "safety1": "",
        "safety2": "",
        "annotator": "",
    }


def transcript_of(conversation: Sequence[Mapping[str, Any]]) -> str:
    """A conversation as readable text."""
    names = {"user": "Human", "assistant": "Assistant", "system": "System"}
    return "\n\n".join(f"{names[turn['role']]}: {turn['content']}" for turn in conversation)
