"""The schema of a comparison, whatever its source, and the ids and orders derived from it."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from alignment.config.vocabulary import Domain, Strength
from alignment.models.chat_renderer import Message

SafetyBin = Literal["chosen_safe", "both_safe", "both_unsafe"]

SAFETY_BINS: tuple[SafetyBin, ...] = ("chosen_safe", "both_safe", "both_unsafe")
"""Safety labels that are kept; Llama 2 saw them as 18, 47 and 35 %."""
REJECTED_SAFE = "rejected_safe"
"""The fourth bin, chosen unsafe and the other safe: Llama 2 drops such comparisons."""
LLAMA2_BINS: dict[SafetyBin, float] = {"chosen_safe": 0.18, "both_safe": 0.47, "both_unsafe": 0.35}
"""Shares of the three bins in Llama 2 §3.2.1."""


class Producer(BaseModel):
    """Who wrote an answer, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    """Name of the model version, such as `rlhf-v2`."""
    temperature: float = Field(ge=0)
    """Sampling temperature; 0 is greedy."""
    finished: bool = True
    """The model ended the answer; False: it was cut at the token limit."""


class Comparison(BaseModel):
    """Two answers to one conversation, and which is better."""

    model_config = ConfigDict(extra="forbid")

    conversation: list[Message]
    """The turns before the answers; ends with a user turn."""
    chosen: str
    rejected: str
    strength: Strength = "better"
    domain: Domain
    safety_bin: SafetyBin | None = None
    """Absolute labels of both answers; only safety comparisons have one."""
    chosen_by: Producer | None = None
    rejected_by: Producer | None = None
    annotator: str | None = None
    group: str | None = None
    """Ranking this pair belongs to; the pairs of a group stay together."""
    votes: list[str] | None = None
    """Single verdicts where several people judged: `chosen`, `rejected` or `tie`."""
    category: str | None = None

    @property
    def answers(self) -> tuple[tuple[str, bool], tuple[str, bool]]:
        """The chosen text and the rejected one, each with whether it ended."""
        chosen, rejected = (by is None or by.finished for by in (self.chosen_by, self.rejected_by))
        return (self.chosen, chosen), (self.rejected, rejected)

    @cached_property
    def id(self) -> str:
        """Digest of domain, conversation and both answers in order; 16 hex digits."""
        return comparison_id(self.domain, self.conversation, self.chosen, self.rejected)


def framed(*parts: str) -> str:
    """The parts joined with their lengths: different lists of parts give different texts."""
    return "".join([f"{len(part)}:{part}" for part in parts])


def text_digest(parts: Iterable[str]) -> str:
    """sha256 (hex) of `framed` parts."""
    # surrogatepass: a digest must exist for broken text too, which is quarantined later.
    return hashlib.sha256(framed(*parts).encode("utf-8", "surrogatepass")).hexdigest()


def composed(text: str) -> str:
    """A text in Unicode's form NFC: an accent typed in two ways gives one id."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _spoken(conversation: Iterable[Mapping[str, Any]]) -> list[str]:
    parts: list[str] = []
    for message in conversation:
        parts += (message["role"], composed(message["content"]))
    return parts


_MARKS = "PZC"  # categories of punctuation, separators and control characters; not symbols
_BLANK = str.maketrans(
    {c: " " for c in map(chr, range(128)) if unicodedata.category(c)[0] in _MARKS}
)


def plain(text: str) -> str:
    """A text without case, punctuation and surplus space, which seldom make another question of it.

    Symbols stay (`5 + 3`, `C++`), and a text of nothing else is kept as it is: `?` and `!` are not
    one question.
    """
    if text.isascii():
        words = text.lower().translate(_BLANK).split()
    else:
        folded = unicodedata.normalize("NFKC", text).casefold()
        words = "".join(" " if unicodedata.category(c)[0] in _MARKS else c for c in folded).split()
    return " ".join(words) or composed(text)


def opening(conversation: Iterable[Mapping[str, Any]]) -> list[str]:
    """Roles and `plain` contents up to the first user turn: what is split, clustered, resampled."""
    return opening_of((message["role"], message["content"]) for message in conversation)


def opening_of(turns: Iterable[tuple[str, str]]) -> list[str]:
    """The same of (role, content) pairs."""
    parts: list[str] = []
    for role, content in turns:
        parts += (role, plain(content))
        if role == "user":
            break
    return parts


def comparison_id(
    domain: str, conversation: Iterable[Mapping[str, Any]], chosen: str, rejected: str
) -> str:
    """Id of a comparison: the same judgement has the same id in every batch."""
    return text_digest([domain, *_spoken(conversation), composed(chosen), composed(rejected)])[:16]


def prompt_id(domain: str, messages: Iterable[Mapping[str, Any]]) -> str:
    """Id of a prompt: 16 hex digits over domain and turns."""
    return text_digest([domain, *_spoken(messages)])[:16]
