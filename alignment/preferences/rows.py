"""Drafts of comparisons, the errors of rows, and the checks that every draft must pass."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from alignment.config.vocabulary import DOMAINS, STRENGTHS
from alignment.preferences.schema import REJECTED_SAFE, SAFETY_BINS

REASONS: dict[str, str] = {
    "bad_utf8": "text that is not valid UTF-8",
    "not_json": "not a JSON object",
    "line_too_long": "a line that is too long",
    "missing_field": "a missing field",
    "unknown_field": "a field that the format does not have",
    "wrong_type": "a value of the wrong type",
    "missing_prompt": "no conversation before the answers",
    "no_common_prompt": "two answers to different conversations",
    "two_prompts": "two columns that hold different conversations",
    "repeated_prompt": "answers that both begin with the short prompt, or repeat it",
    "markup": "a turn marker or a special token of a chat template inside a text",
    "unreadable": "tools, pictures or other parts that no reader can read",
    "unknown_role": "a role other than user, assistant and system",
    "scores_against": "scores or a margin that favour the rejected answer",
    "repeated_key": "a key that stands twice in one object",
    "no_status": "responses without their status: drafts and discarded ones cannot be told apart",
    "no_side": "labels without a choice between the two answers",
    "roles": "turns that do not alternate, or do not end with the user",
    "empty_turn": "a turn without text",
    "empty_answer": "an answer without text",
    "identical_answers": "two answers that are the same",
    "nul": "a NUL character",
    "too_long": "too many characters",
    "unknown_strength": "a strength that is none of the four",
    "unknown_domain": "no domain, or one other than helpfulness and safety",
    "unknown_bin": "a safety bin that is none of the four",
    "unknown_task": "an annotation of a task that was never exported",
    "bad_vote": "a verdict that cannot be read",
    "conflict": "the opposite verdict on the same pair in this batch",
    "conflict_earlier": "the opposite verdict in an earlier batch, not known as another person's",
    "differs_earlier": "the same verdict in an earlier batch, of another strength or safety label",
    "unknown_correction": "a correction of a comparison that no batch has",
    "duplicate": "the same comparison earlier in this batch",
    "duplicate_earlier": "the same comparison in an earlier batch",
    "tie": "neither answer is better",
    "rejected_safe": "chosen unsafe, the other safe",
    "not_annotated": "nobody has judged it yet",
    "skipped": "everybody who saw it skipped or discarded it",
    "joined": "a further verdict on a pair, put together with the first one",
}
"""Reason → its description, for every reason not to accept a row."""

DROPPED = frozenset(
    {
        "duplicate",
        "duplicate_earlier",
        "tie",
        "rejected_safe",
        "not_annotated",
        "skipped",
        "joined",
    }
)
"""Sound rows that are left out on purpose. They do not count as bad rows."""

DISPUTED = frozenset({"conflict", "conflict_earlier", "differs_earlier", "no_side"})
"""Quarantined for a person to decide. They do not count as bad rows either: the file is sound."""
CONTRADICTIONS = ("conflict_earlier", "differs_earlier")
SAY_SO = (
    "if such verdicts correct those that stand, say so: `align ingest FILE --correct`; if they are "
    "other people's, name the `annotator` of both"
)
"""What to do about contradictions."""
_FILLERS = "\u115f\u1160\u2800\u3164\uffa0"
"""Hangul fillers and the empty Braille cell: letters and signs that show nothing."""
_INVISIBLE = (
    string.whitespace
    + "\u00a0\u00ad\u180e\u2028\u2029\u3000\ufeff"
    + _FILLERS
    + "".join(
        chr(code)
        for code in (*range(0x2000, 0x2010), *range(0x202F, 0x2030), *range(0x205F, 0x2065))
    )
)

LABEL = 1000
"""Maximum characters in the name of an annotator, a group, a category or a version."""


class RowError(Exception):
    """A row that is not accepted.

    Args:
        reason: a key of `REASONS`.
        field: the field at fault.
        detail: the value at fault, or what is wrong with it.
        people: the votes, where people judged the pair all the same.
    """

    def __init__(self, reason: str, field: str, detail: str = "", people: Votes | None = None):
        super().__init__(reason, field, detail)
        self.reason = reason
        self.field = field
        self.detail = detail
        self.people = people
        self.tied: Draft | None = None
        """The comparison, either answer as the chosen one, where people found none better."""


Turn = tuple[str, str]
Votes = Sequence[tuple[str | None, str]]
"""Name, if known, and vote of each person who judged a pair."""


class By(NamedTuple):
    """Who wrote an answer, not yet checked; see `schema.Producer`."""

    version: str
    temperature: float
    finished: bool = True


@dataclass(slots=True)
class Draft:
    """A comparison as read from a row, not yet checked."""

    turns: list[Turn]
    """(role, text) of the conversation before the answers."""
    chosen: str
    rejected: str
    strength: str
    domain: str | None = None
    safety_bin: str | None = None
    chosen_by: By | None = None
    rejected_by: By | None = None
    annotator: str | None = None
    group: str | None = None
    votes: list[str] | None = None
    category: str | None = None
    people: Votes | None = None
    """Who voted how, for the report; `votes` say it relative to the winner, for training."""
    judged: str | None = None
    """When the last of its verdicts was given or changed, by the tool's clock, in UTC."""
    corrects: bool | str = False
    """Whether it says that it corrects a verdict on its pair, or the id of that comparison."""
    unrated: bool = False
    """The row says no strength; `strength` is `intake.strength`."""
    notes: tuple[str, ...] = ()
    """What was changed or guessed on reading, for the report."""
    prompt_characters: int = 0
    """Filled in by `check`."""


DraftOrError = Draft | RowError
"""One comparison of a row: a draft, or the reason why there is none."""


def check(draft: Draft, max_characters: int) -> None:
    """Check a draft and fill in `prompt_characters`.

    Args:
        max_characters: bound on the prompt and the longer answer together.

    Raises:
        RowError: the first fault.
    """
    chosen, rejected = draft.chosen, draft.rejected
    if type(chosen) is not str:
        raise RowError("wrong_type", "chosen", f"{type(chosen).__name__}, not text")
    if type(rejected) is not str:
        raise RowError("wrong_type", "rejected", f"{type(rejected).__name__}, not text")
    size = draft.prompt_characters = _check_turns(draft.turns)
    if is_blank(chosen) or is_blank(rejected):
        raise RowError("empty_answer", "chosen" if is_blank(chosen) else "rejected")
    if "\0" in chosen or "\0" in rejected:
        raise RowError("nul", "chosen" if "\0" in chosen else "rejected")
    if chosen == rejected or _bare(chosen) == _bare(rejected):
        raise RowError("identical_answers", "rejected")
    size += max(len(chosen), len(rejected))
    if size > max_characters:
        raise RowError(
            "too_long", "conversation", f"{size:,} characters, at most {max_characters:,} allowed"
        )
    if draft.strength not in STRENGTHS:
        raise RowError("unknown_strength", "strength", repr(draft.strength)[:80])
    if draft.domain not in DOMAINS:
        raise RowError("unknown_domain", "domain", repr(draft.domain)[:80])
    if draft.safety_bin is not None and draft.safety_bin not in SAFETY_BINS:
        if draft.safety_bin == REJECTED_SAFE:
            raise RowError("rejected_safe", "safety_bin")
        raise RowError("unknown_bin", "safety_bin", repr(draft.safety_bin)[:80])
    for name, value in (
        ("annotator", draft.annotator),
        ("group", draft.group),
        ("category", draft.category),
        ("chosen_by.version", draft.chosen_by and draft.chosen_by.version),
        ("rejected_by.version", draft.rejected_by and draft.rejected_by.version),
    ):
        if value is not None:
            _check_label(name, value)


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: white space, format and control characters, fillers."""
    if not text or (text[0].isascii() and text[0].isalnum()):
        return not text
    return all(
        char.isspace() or char in _FILLERS or unicodedata.category(char) in ("Cf", "Cc", "Mn", "Me")
        for char in text
    )


def _bare(text: str) -> str:
    """A text in NFC without white space and invisible characters around it."""
    if text.isascii():
        return text.strip()
    return unicodedata.normalize("NFC", text).strip(_INVISIBLE)


def _check_turns(turns: list[Turn]) -> int:
    if not turns:
        raise RowError("missing_prompt", "conversation")
    size = 0
    expected = "user"
    for index, (role, text) in enumerate(turns):
        if type(text) is not str:
            raise RowError(
                "wrong_type", f"conversation.{index}.content", f"{type(text).__name__}, not text"
            )
        if role != expected and not (role == "system" and index == 0):
            raise RowError("roles", f"conversation.{index}.role", f"{role!r} after a turn too many")
        if is_blank(text):
            raise RowError("empty_turn", f"conversation.{index}.content")
        if "\0" in text:
            raise RowError("nul", f"conversation.{index}.content")
        size += len(text)
        expected = "assistant" if role == "user" else "user"
    if expected != "assistant":
        raise RowError("roles", "conversation", f"ends with the {turns[-1][0]}, not with the user")
    return size


def _check_label(name: str, value: object) -> None:
    if type(value) is not str:
        raise RowError("wrong_type", name, f"{type(value).__name__}, not text")
    if "\0" in value:
        raise RowError("nul", name)
    if len(value) > LABEL:
        raise RowError("too_long", name, f"{len(value):,} characters, at most {LABEL:,} allowed")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RowError("bad_utf8", name, "a lone surrogate") from None
