"""Turn markers and special tokens of chat templates inside texts.

They mean that a text holds more than one turn, or has been through a template already: read as
plain words, they would teach a policy to write them.
"""

from __future__ import annotations

import re

from alignment.preferences.rows import Draft, RowError

_TOKEN = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<｜[^｜<>\n]{1,40}｜>"  # ChatML, Llama 3, Phi, Command R; DeepSeek
    r"|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|\[/?(?:SYSTEM_PROMPT|TOOL_CALLS|gMASK)\]"
    r"|<(?:bos|eos|sop|eop)>|</?(?:tool_call|tool_response)>"
    r"|</?im_(?:start|end)>|<(?:human|bot)>:|\[\|\w{1,20}\|\]|<(?:reserved|extra_id)_\d+>"
    r"|\[UNUSED_TOKEN_\d+\]"  # StarChat, OpenChatKit, EXAONE, Baichuan, Nemotron, InternLM
)
_HEADING = re.compile(r"^###\s*(?:Instruction|Response|Human|Assistant|User|System)\s*:", re.M)
_OPENS = re.compile(
    r"\A\s*(?:BEGINNING OF CONVERSATION:\s*)?(?:user|human|assistant|system)\s*:", re.IGNORECASE
)
_USER = re.compile(r"^[ \t]*(?:user|human)[ \t]*:", re.IGNORECASE | re.MULTILINE)
_ASSISTANT = re.compile(r"^[ \t]*assistant[ \t]*:|\s(?-i:ASSISTANT):", re.IGNORECASE | re.MULTILINE)
_MESSAGES = re.compile(r"\A\s*\[\s*\{\s*['\"](?:role|content|from|value)['\"]\s*:")


def token_in(text: str) -> str | None:
    """The first special token in a text, or the beginning of messages written out as text."""
    if "<" not in text and "[" not in text:
        return None
    match = _TOKEN.search(text) or _MESSAGES.search(text)
    if match:
        return match.group().strip()
    bare = text.strip()  # a beginning or an end of sequence that is no HTML pair <s>…</s>
    if bare.startswith("<s>") and "</s>" not in bare:
        return "<s>"
    return "</s>" if bare.endswith("</s>") and "<s>" not in bare else None


def marker_in(text: str) -> str | None:
    """The marker in a text that is, or holds, a transcript of another spelling."""
    if ":" not in text:
        return None
    match = _HEADING.search(text) or _OPENS.search(text)
    if match is None and _USER.search(text):
        match = _ASSISTANT.search(text)
    return match.group().strip() if match else None


def refuse_markup(draft: Draft, *, markers: bool) -> None:
    """Check a comparison whose answers were written elsewhere.

    Our own policies' answers are not checked: what they wrote is what is judged.

    Args:
        markers: look for turn markers too. HH's own were read as turns, and our schema's turns are
            explicit.

    Raises:
        RowError: a text holds a marker or a special token.
    """
    if draft.chosen_by is not None or draft.rejected_by is not None:
        return
    texts = [(f"conversation.{index}", text) for index, (_, text) in enumerate(draft.turns)]
    for field, text in (*texts, ("chosen", draft.chosen), ("rejected", draft.rejected)):
        found = token_in(text) or (marker_in(text) if markers else None)
        if found is not None:
            raise RowError("markup", field, repr(found)[:80])
