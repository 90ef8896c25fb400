"""How stages are carried out; nothing here changes a result, so no fingerprint covers it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from alignment.config.clock import check_cron, check_timezone
from alignment.config.section import Section


class OutboxConfig(Section):
    """What lies ready for annotators when a version is done (`intake.source: inbox`)."""

    tool: Literal["jsonl", "label-studio", "argilla"] = "jsonl"
    """Format of the tasks."""
    select: Literal["random", "uncertain"] = "random"
    """In random order, or those first about which the reward models are least sure."""
    count: int | None = Field(default=None, ge=1)
    """At most so many pairs; unset: all that were collected."""


class OrchestrationConfig(Section):
    """Who runs what, when, and what happens when it fails."""

    parallel: bool = False
    """Run stages that do not need each other side by side, each in a process of its own: the two
    reward models, the two guards, and evaluation beside collection, unless each would start a
    vLLM server. Pays where both fit into memory and there are cores or GPUs for both."""
    min_comparisons: int = Field(default=1, ge=1)
    """`intake.source: inbox`: a version begins when so many new comparisons have been accepted
    since the last one took its own in; until then it waits."""
    settle_seconds: float = Field(default=5.0, ge=0)
    """A file of the inbox is taken when it has not changed for so long and nobody has it open for
    writing."""
    intake_cron: str | None = "*/15 * * * *"
    """When `align serve` looks into the inbox even though nothing was seen to arrive; unset:
    never."""
    iteration_cron: str | None = "0 6 * * 1"
    """When `align serve` begins the next version, or goes on with a broken one; unset: only when
    enough has arrived, or when asked."""
    timezone: str = "UTC"
    """Time zone of the two."""
    retries: int = Field(default=3, ge=0)
    """Times a stage is tried again after a failure that may pass by itself: a connection, a
    server's error, a file system that did not answer."""
    retry_seconds: float = Field(default=5.0, gt=0)
    """Wait before the first of them; it doubles each time."""
    grace_seconds: float = Field(default=15.0, ge=0)
    """A stage that is told to stop (Ctrl-C, a cancel in Prefect's page, `align down`) goes on to
    its next checkpoint for so long at most; Prefect itself kills 30 s after a cancel."""
    outbox: OutboxConfig = OutboxConfig()

    @field_validator("intake_cron", "iteration_cron")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        if value is not None:
            check_cron(value)
        return value

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, value: str) -> str:
        check_timezone(value)
        return value
