"""Transcripts as Anthropic's HH-RLHF spells them: `\\n\\nHuman: …\\n\\nAssistant: …`."""

from __future__ import annotations

import re

from alignment.preferences.readers.format import common_prefix
from alignment.preferences.rows import RowError, Turn

MARKER = "\n\nAssistant:"
_TURN = re.compile(r"\n\n(Human|Assistant|System):")
# A turn that a model wrote into its answer, without the blank line before it: at the beginning or
# after the end of a sentence.
_STRAY = re.compile(r"(?:\A|[.!?…\"'”’)]|\n)\s*(Human|Assistant):")
_ROLE = {"Human": "user", "Assistant": "assistant", "System": "system"}


def is_transcript(value: object) -> bool:
    """Whether a text begins like an HH transcript; some variants open with a system turn."""
    if type(value) is not str:
        return False
    start = value.lstrip()
    return start.startswith("Human:") or (start.startswith("System:") and "\n\nHuman:" in start)


def transcript(value: str, name: str) -> list[Turn]:
    """The turns of a transcript. A marker inside a message reads as a new turn.

    Raises:
        RowError: the transcript does not begin with a turn.
    """
    start, *parts = _TURN.split(value if value.startswith("\n\n") else "\n\n" + value.lstrip())
    if start.strip():
        raise RowError("roles", name, "text before the first turn")
    return [(_ROLE[parts[index]], parts[index + 1].strip()) for index in range(0, len(parts), 2)]


def prompt_turns(value: str, name: str) -> list[Turn]:
    """A text prompt as turns: an HH transcript, or one message of the user.

    Raises:
        RowError: the prompt is empty.
    """
    if not value.strip():
        raise RowError("missing_prompt", name)
    if not is_transcript(value):
        return [("user", value.strip())]
    dialogue = transcript(value, name)
    if dialogue[-1] == ("assistant", ""):  # a final "Assistant:" only opens the answer
        dialogue.pop()
    return dialogue


def part(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Split two transcripts into their common conversation and the two answers.

    The answers begin at the last `Assistant:` that both transcripts share.

    Raises:
        RowError: the transcripts share no `Assistant:` turn, or an answer holds further turns. Both
            answers are checked: a model that learns from them would speak for its user.
    """
    left, right = chosen.rfind(MARKER), rejected.rfind(MARKER)
    if left < 0 or right < 0:
        raise RowError("missing_prompt", "chosen" if left < 0 else "rejected", "no Assistant turn")
    if left != right or chosen[:left] != rejected[:right]:
        common = chosen[: common_prefix(chosen, rejected)]
        left = common.rfind(MARKER)
        if left < 0:
            raise RowError("no_common_prompt", "rejected", "the transcripts differ from the start")
    cut = left + len(MARKER)
    answers = chosen[cut:], rejected[cut:]
    for field, answer in zip(("chosen", "rejected"), answers, strict=True):
        if _TURN.search(answer):
            raise RowError(
                "no_common_prompt", field, "more turns follow after the transcripts diverge"
            )
        if stray := _STRAY.search(answer):
            raise RowError("markup", field, f"an answer that goes on as {stray[1]!r}")
    return chosen[:left], answers[0].strip(), answers[1].strip()
