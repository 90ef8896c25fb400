"""TRL's and Hugging Face's preference format: plain or conversational, with or without a prompt."""

from __future__ import annotations

from typing import Any

from alignment.config.intake import IntakeConfig
from alignment.preferences.readers.format import (
    Format,
    Row,
    TaskKeys,
    common_prefix,
    draft,
    label,
    turns,
)
from alignment.preferences.readers.hh import prompt_turns
from alignment.preferences.rows import DraftOrError, RowError, Turn


def _read(row: Row, config: IntakeConfig, _keys: TaskKeys) -> list[DraftOrError]:
    conversation, chosen, rejected = _parts(row)
    return [draft(row, conversation, (chosen, rejected), label(row, "strength") or config.strength)]


def _parts(row: Row) -> tuple[list[Turn], str, str]:
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if type(chosen) is str and type(rejected) is str:
        if row.get("prompt") is None:
            return _split_plain(chosen, rejected)
        return _prompt(row["prompt"]), chosen.strip(), rejected.strip()
    if type(chosen) is list and type(rejected) is list:
        return _conversational(
            row.get("prompt"), turns(chosen, "chosen"), turns(rejected, "rejected")
        )
    for name, value in (("chosen", chosen), ("rejected", rejected)):
        if value is None:
            raise RowError("missing_field", name)
        if type(value) not in (str, list):
            raise RowError("wrong_type", name, f"{type(value).__name__}, not text or turns")
    raise RowError("wrong_type", "rejected", "one answer is text, the other a list of turns")


def _prompt(value: Any) -> list[Turn]:
    if type(value) is list:
        return turns(value, "prompt")
    if type(value) is not str:
        raise RowError("wrong_type", "prompt", f"{type(value).__name__}, not text or turns")
    return prompt_turns(value, "prompt")


def _split_plain(chosen: str, rejected: str) -> tuple[list[Turn], str, str]:
    """The common beginning is the prompt, up to its last whole word (as TRL does)."""
    common = chosen[: common_prefix(chosen, rejected)]
    if len(common) < min(len(chosen), len(rejected)):
        common = common[: max(common.rfind(" "), common.rfind("\n")) + 1]
    if not common.strip():
        raise RowError("missing_prompt", "prompt", "the two texts begin with nothing in common")
    return (
        [("user", common.strip())],
        chosen[len(common) :].strip(),
        rejected[len(common) :].strip(),
    )


def _conversational(
    prompt: Any, chosen: list[Turn], rejected: list[Turn]
) -> tuple[list[Turn], str, str]:
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if not side:
            raise RowError("empty_answer", name)
        if side[-1][0] != "assistant":
            raise RowError("roles", name, "does not end with the assistant")
    before, other = chosen[:-1], rejected[:-1]
    if before != other:
        raise RowError("no_common_prompt", "rejected", "the turns before the answers differ")
    given_turns = _prompt(prompt) if prompt is not None else []
    # UltraFeedback repeats the prompt in both sides; TRL's own sides hold the answer only.
    conversation = before if before[: len(given_turns)] == given_turns else given_turns + before
    if not conversation:
        raise RowError("missing_prompt", "prompt")
    return conversation, chosen[-1][1], rejected[-1][1]


def _matches(row: Row) -> bool:
    return "chosen" in row and "rejected" in row


FORMAT = Format("trl", _matches, _read)
