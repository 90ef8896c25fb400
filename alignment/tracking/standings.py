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
        verdicts: version → the gate's verdict (decision.json), in order.
        decisions: version → a person's decision.
    """

    champion: str | None = None
    batches: list[BatchUse] = field(default_factory=list)
    verdicts: dict[str, dict[str, Any]] = field(default_factory=dict)
    decisions: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, program: ProgramConfig, versions: list[VersionHistory]) -> Standings:
        """Gather it from the workspace."""
        stages = {history.version: history.directories for history in versions}
        decisions = Decisions.load(program)
        verdicts = {
            name: read_json(done["promote"] / "decision.json")
            for name, done in stages.items()
            if "promote" in done
        }
        return cls(
            decisions.champion if verdicts else None,
            batches(stages),
            verdicts,
            {name: asdict(made) for name, made in decisions.decided.items() if name in stages},
        )

    def of_version(self, version: str) -> str:
        """`champion`, `former champion`, `challenger` (the newest) or `not promoted`; empty for a
        version without a verdict."""
        if version == self.champion:
            return "champion"
        if version == "sft" and self.champion is not None:
            return "former champion"  # what the first promoted version took the place of
        if version not in self.verdicts:
            return ""
        made = self.decisions.get(version)
        if made["approved"] if made else self.verdicts[version]["promoted"]:
            return "former champion"
        return "challenger" if version == list(self.verdicts)[-1] else "not promoted"

    def note(self) -> str:
        """Markdown for the top of the experiment's page."""
        if self.champion is None:
            return ""
        first, *others = champion_lines(self.champion, self.verdicts, self.decisions, self.batches)
        return "\n\n".join([f"**{first}**", *others])
