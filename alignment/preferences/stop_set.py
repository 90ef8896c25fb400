"""The stop set: prompts that nothing but PPO's early stopping ever draws.

Reward models know the prompts that were sampled and judged best, and are surest of themselves
there: a policy that is looked at on these would seem to improve for too long.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment.errors import DamagedError, DataError
from alignment.preferences.prompts import Prompt
from alignment.preferences.schema import framed, opening
from alignment.utils.json_lines import read_jsonl

STOP_FILE = "stop_prompts.jsonl"
STOP_TEXTS = "stop_texts.jsonl"
"""Texts of the built-in world whose loss tells whether a policy forgets; see `read_texts`."""
SHARE = 0.1
"""Share of the pool that is reserved."""
MOST = 512
"""Prompts reserved at most: more would not be looked at."""
SALT = "stop"  # makes this split independent of other splits by hash


def reserve(pool: Sequence[Prompt]) -> tuple[list[Prompt], list[Prompt]]:
    """The pool without the stop set, and the stop set, both in the pool's order.

    A hash of the opening decides, so that prompts of one opening stay together and the order of the
    pool has no influence. Openings with more prompts than there is room for stay in the pool.
    """
    keys = [framed(SALT, *opening(prompt.messages)) for prompt in pool]
    sizes = Counter(keys)
    room = min(MOST, int(SHARE * len(pool)))
    chosen = set()
    for key in sorted(sizes, key=_digest):
        if sizes[key] <= room:
            chosen.add(key)
            room -= sizes[key]
    stop = [prompt for prompt, key in zip(pool, keys, strict=True) if key in chosen]
    rest = [prompt for prompt, key in zip(pool, keys, strict=True) if key not in chosen]
    return rest, stop


def read_texts(path: Path) -> list[dict[str, Any]]:
    """The rows of a user's file of texts (`ppo.stop.texts`), JSON lines with `text`.

    Raises:
        DataError: no such file, a line that is no such row, or no text at all.
    """
    remedy = 'JSON lines, each like {"text": "…"}, in UTF-8'
    try:
        rows = read_jsonl(path)
    except DamagedError as error:
        raise DataError(error.message, where=error.where, remedy=remedy) from None
    except OSError as error:
        raise DataError(
            f"the texts of ppo.stop.texts cannot be read: {error.strerror}",
            where=str(path),
            remedy=remedy,
        ) from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("text"), str):
            raise DataError("a row has no text", where=f"{path}, row {number}", remedy=remedy)
    if not any(row["text"].strip() for row in rows):
        raise DataError("there is no text in the file", where=str(path), remedy=remedy)
    return rows


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
