"""Where each version stands: who is champion, why, and made from which batches."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from alignment.config.program import ProgramConfig
from alignment.pipeline.approval import Decisions
from alignment.reporting.champion_summary import champion_lines
from alignment.reporting.origin import BatchUse, batches
from alignment.tracking.history import VersionHistory
from alignment.utils.files import read_json


@dataclass(frozen=True)
class Standings:
    """What the notes and tags of all versions are written from.

    Attributes:
        champion: the version now recommended; None before the first verdict.
        batches: those of all versions.
        decisions: version → decision.json, in order.
        words: version → a person's decision.
    """

    champion: str | None = None
    batches: list[BatchUse] = field(default_factory=list)
    decisions: dict[str, dict[str, Any]] = field(default_factory=dict)
    words: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, program: ProgramConfig, versions: list[VersionHistory]) -> Standings:
        """Gather it from the workspace."""
        stages = {history.version: history.directories for history in versions}
        decided = Decisions.load(program)
        decisions = {
            name: read_json(done["promote"] / "decision.json")
            for name, done in stages.items()
            if "promote" in done
        }
        return cls(
            decided.champion if decisions else None,
            batches(stages),
            decisions,
            {name: asdict(word) for name, word in decided.approvals.items() if name in stages},
        )

    def of_version(self, version: str) -> str:
        """`champion`, `former champion`, `challenger` (the newest) or `not promoted`; empty for a
        version that no decision was made on."""
        if version == self.champion:
            return "champion"
        if version == "sft" and self.champion is not None:
            return "former champion"  # what the first promoted version took the place of
        if version not in self.decisions:
            return ""
        word = self.words.get(version)
        if word["approved"] if word else self.decisions[version]["promoted"]:
            return "former champion"
        return "challenger" if version == list(self.decisions)[-1] else "not promoted"

    def new_batches(self, version: str) -> list[BatchUse]:
        """The batches that came with a version."""
        return [batch for batch in self.batches if batch.version == version]

    def note(self) -> str:
        """Markdown for the top of the experiment's page."""
        if self.champion is None:
            return ""
        first, *others = champion_lines(self.champion, self.decisions, self.words, self.batches)
        return "\n\n".join([f"**{first}**", *others])
