"""Which of two versions is the newer, from their names alone."""

from __future__ import annotations

import re

_NUMBERED = re.compile(r"(.*?)(\d+)$")
_FIRST = {"base": (0, 0, ""), "sft": (1, 0, "")}


def version_order(name: str) -> tuple[int, int, str]:
    """Sort key: base, then sft, then numbered versions by their number, then other names.

    >>> sorted(["rlhf-v10", "sft", "rlhf-v2", "base"], key=version_order)
    ['base', 'sft', 'rlhf-v2', 'rlhf-v10']
    """
    if name in _FIRST:
        return _FIRST[name]
    numbered = _NUMBERED.match(name)
    if numbered:
        return (2, int(numbered[2][:12]), numbered[1])
    return (3, 0, name)
