"""The stop set: prompts that nothing but PPO's early stopping ever draws.

Reward models know the prompts that were sampled and judged best, and are surest of themselves
there: a policy that is looked at on these would seem to improve for too long.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from alignment.preferences.prompts import Prompt
from alignment.preferences.schema import framed, opening

STOP_FILE = "stop_prompts.jsonl"
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


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
