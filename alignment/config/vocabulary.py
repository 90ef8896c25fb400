"""Words that all rooms share: domains, strengths, the order of versions."""

from __future__ import annotations

import re
from typing import Literal, get_args

Domain = Literal["helpfulness", "safety"]
Strength = Literal["significantly", "better", "slightly", "negligibly"]

DOMAINS: tuple[Domain, ...] = get_args(Domain)
Origin = Literal["own", "open"]
"""Where the comparisons of a batch come from: own annotators, or open data."""
"""The two campaigns of Llama 2, each with a reward model of its own."""
STRENGTHS: tuple[Strength, ...] = get_args(Strength)
"""The four strengths of a preference, clearest first (Llama 2 §3.2.1)."""

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
