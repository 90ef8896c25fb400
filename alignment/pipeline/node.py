"""One stage of one version: the unit of the plan and of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Key = tuple[str, str]


@dataclass(frozen=True)
class Node:
    """One stage of one version.

    Attributes:
        module: name of the module in `alignment.stages` that runs it.
        inputs: input name → (version, stage) whose committed directory it reads.
        options: values that distinguish this node from others of the same module.
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
