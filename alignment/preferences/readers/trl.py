"""TRL's and Hugging Face's preference format: plain or conversational, with or without a prompt.

The prompt may stand in any of the columns of `asked`, and once more at the beginning of both
answers. Only where no other column holds text do the answers' common words count as the prompt.
"""

from __future__ import annotations

from typing import Any

from alignment.config.intake import IntakeConfig
from alignment.preferences.readers import asked, scores
from alignment.preferences.readers.format import (
    SHARED,
    Format,
    Row,
    TaskKeys,
    common_prefix,
    draft,
    turns,
)
from alignment.preferences.readers.transcripts import is_transcript, part, transcript
from alignment.preferences.rows import DraftOrError, RowError, Turn

REPEATED_WORDS = 4
"""A prompt of fewer words, without a mark at its end, could be a repeated prompt or the answer's
own beginning."""


def _read(row: Row, config: IntakeConfig, _keys: TaskKeys) -> list[DraftOrError]:
    conversation, chosen, rejected, *notes = _parts(row)
    return [
        draft(
            row,
            asked.with_system(row, conversation),
            (chosen, rejected),
            scores.stated_strength(row, config),
            notes=tuple(notes),
        )
    ]


Parts = tuple[list[Turn], str, str] | tuple[list[Turn], str, str, str]
"""The conversation, both answers, and what to note about how they were found."""
COMMON = "the prompt is what both answers begin with"
REPEATED = "the prompt stood in both answers too, and was cut off there"


def _parts(row: Row) -> Parts:
    chosen, rejected = (_messages(row.get(name)) for name in ("chosen", "rejected"))
    for name, value in (("chosen", chosen), ("rejected", rejected)):
        if value is None:
            raise RowError("missing_field", name)
        if type(value) not in (str, list):
            raise RowError("wrong_type", name, f"{type(value).__name__}, not text or turns")
    if type(chosen) is str and type(rejected) is str:
        return _plain(row, chosen, rejected)
    if type(chosen) is list and type(rejected) is list:
        return _conversational(row, turns(chosen, "chosen"), turns(rejected, "rejected"))
    raise RowError("wrong_type", "rejected", "one answer is text, the other a list of turns")


def _messages(value: Any) -> Any:
    return [value] if type(value) is dict else value


def _plain(row: Row, chosen: str, rejected: str) -> Parts:
    given = asked.asked(row)
    if is_transcript(chosen) and is_transcript(rejected):
        before, *answers = part(chosen, rejected)
        return asked.agreed(given, transcript(before, "chosen"), "chosen"), answers[0], answers[1]
    if given:
        sides = _without_prompt(given[-1][1].strip(), chosen.strip(), rejected.strip())
        whole = len(sides[0]) == len(chosen.strip())
        return (given, *sides) if whole else (given, *sides, REPEATED)
    if any(type(row.get(name)) is str for name in asked.QUESTIONS):
        raise RowError("missing_prompt", "prompt", "the column is there and empty")
    others = asked.other_texts(row)
    if others:
        raise RowError(
            "missing_prompt", "prompt", f"call the column `prompt`; other texts: {others}"[:200]
        )
    return *_split_plain(chosen, rejected), COMMON


def _without_prompt(prompt: str, chosen: str, rejected: str) -> tuple[str, str]:
    """Both answers without the prompt that both repeat.

    Raises:
        RowError: a prompt of a few words, which an answer may begin with by itself ("Hello").
    """
    size = len(prompt)
    sides = chosen, rejected
    if not prompt or not all(side.startswith(prompt) and side[size:].strip() for side in sides):
        return sides
    if not all(side[size].isspace() or prompt[-1] in ".?!:" for side in sides):
        return sides  # "Egg": "Eggs boil."
    if len(prompt.split()) < REPEATED_WORDS and prompt[-1] not in ".?!:":
        raise RowError("repeated_prompt", "chosen", repr(prompt)[:80])
    return chosen[size:].strip(), rejected[size:].strip()


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
    row: Row, chosen: list[Turn], rejected: list[Turn]
) -> tuple[list[Turn], str, str]:
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if not side:
            raise RowError("empty_answer", name)
        if side[-1][0] != "assistant":
            raise RowError("roles", name, "does not end with the assistant")
    before, other = chosen[:-1], rejected[:-1]
    if before != other:
        raise RowError("no_common_prompt", "rejected", "the turns before the answers differ")
    given = asked.asked(_without_echo(row, chosen))
    # UltraFeedback repeats the prompt in both sides; TRL's own sides hold the answer only.
    if before and given and not asked.same(before[: len(given)], given):
        begins = [turn for turn in before if turn[0] != "system"]
        alternate = before[0][0] == "user" and given[-1][0] == "assistant"
        joined = given + before if alternate else asked.agreed(given, before, "chosen")
        conversation = before if asked.same(begins[: len(given)], given) else joined
    else:
        conversation = before or given
    if not conversation:
        raise RowError("missing_prompt", "prompt")
    return conversation, chosen[-1][1], rejected[-1][1]


def _without_echo(row: Row, chosen: list[Turn]) -> Row:
    """The row without `messages` where they only repeat the chosen side (UltraFeedback)."""
    messages = row.get("messages")
    if type(messages) is not list or not messages:
        return row
    said = turns(messages, "messages")
    if said[-1][0] != "assistant":
        return row
    if not asked.same(said[-len(chosen) :], chosen):
        raise RowError("two_prompts", "messages", "they end with another answer than `chosen`")
    rest = said[:-1] if len(said) > len(chosen) else None
    messages = None if rest is None else [{"role": role, "content": text} for role, text in rest]
    return {**row, "messages": messages}


def _matches(row: Row) -> bool:
    return "chosen" in row and "rejected" in row


FORMAT = Format(
    "trl", _matches, _read, SHARED | asked.COLUMNS | scores.COLUMNS | {"chosen", "rejected"}
)
