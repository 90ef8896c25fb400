"""How stages are carried out; nothing here changes a result, so no fingerprint covers it."""

from __future__ import annotations

from alignment.config.section import Section


class OrchestrationConfig(Section):
    """Who runs what beside what."""

    parallel_rewards: bool = False
    """Train the two reward models side by side, each in a process of its own. Pays where both fit
    into memory and there are cores or GPUs for both."""
