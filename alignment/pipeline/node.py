"""One stage of one version: what the plan is made of, and what the ledger keeps books on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Key = tuple[str, str]


@dataclass(frozen=True)
class Node:
    """One stage of one version.

    Attributes:
        module: name of the module in `alignment.stages` that does it.
        inputs: input name → (version, stage) whose committed directory it gets.
        options: what distinguishes this node from others of the same module.
    """

    version: str
    stage: str
    module: str
    inputs: Mapping[str, Key] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """`rlhf-v1/sample`, as the command line names it."""
        return f"{self.version}/{self.stage}"


STUDENT = "student"
FIRST_CHAMPION = "sft"  # recommended until a version of the loop is promoted
