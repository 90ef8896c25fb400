"""People's decisions on versions, approved or rejected, kept in the workspace beside the ledger.

    approvals/rlhf-v3.json      {"version", "approved", "reason", "by", "when", "fingerprint"}

A decision applies to one verdict: `fingerprint` is that of the promote stage. If the version is
re-run, decide again. The verdict that counts is the current one (`Ledger.current`), because the
present configuration follows from the plan and the plan from the verdicts. Decisions change the
plan: the version after a rejected one starts from the champion (`alignment.pipeline.plan`).
Only `Decisions` works out which version is champion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError, DamagedError
from alignment.pipeline.format import as_record, read_as
from alignment.pipeline.ledger import Ledger, now
from alignment.pipeline.node import FIRST_CHAMPION
from alignment.pipeline.records import REPEAT
from alignment.pipeline.workspace import is_workspace, kept_program
from alignment.utils.files import atomic_write_json, read_object
from alignment.utils.user_name import user_name


class WaitingForDecision(AlignError):
    """A version is finished, and a person must decide before the next one begins."""

    exit_code = 6

    def __init__(self, version: str, verdict: str, workspace: Path):
        super().__init__(
            f"{version} waits for a person's decision. The gate says: {verdict}",
            remedy=f"align approve {version} -w {workspace} · "
            f"align reject {version} --reason WHY -w {workspace}",
        )
        self.version = version
        self.verdict = verdict


@dataclass(frozen=True)
class Decision:
    """A person's decision. `by` names the person, `when` is the time in UTC."""

    version: str
    approved: bool
    reason: str
    by: str
    when: str
    fingerprint: str


@dataclass(frozen=True)
class Verdict:
    """The gate's verdict, as the promote stage wrote it, and that stage's fingerprint."""

    fingerprint: str
    values: dict[str, Any]

    @property
    def promoted(self) -> bool:
        """Whether the version passed the gate."""
        return bool(self.values["promoted"])


@dataclass(frozen=True)
class Decisions:
    """A snapshot of people's decisions and gate verdicts on the versions of a program.

    Attributes:
        decided: version → a person's decision on its current verdict, if there is one.
        verdicts: version → the latest verdict of its gate.
    """

    program: ProgramConfig
    decided: Mapping[str, Decision] = field(default_factory=dict)
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)

    @classmethod
    def load(cls, program: ProgramConfig) -> Decisions:
        """Read them from the workspace.

        Raises:
            AlignError: a record is damaged.
        """
        decided, verdicts = {}, {}
        for name in (version.name for version in program.versions):
            if (verdict := find_verdict(program.workspace, name)) is not None:
                verdicts[name] = verdict
            if (decision := find_decision(program.workspace, name)) is not None:
                decided[name] = decision
        return cls(program, decided, verdicts)

    @property
    def by_person(self) -> bool:
        """Whether people decide and the gate only advises."""
        return self.program.promote.approval == "person"

    def accepted(self, version: str) -> bool:
        """Whether a later version may start from `version`; True unless it was rejected.

        A person can reject it, and so can the gate if `promote.parent` is `champion`.
        """
        if version in self.decided:
            return self.decided[version].approved
        if self.program.promote.parent == "champion" and not self.by_person:
            return version not in self.verdicts or self.verdicts[version].promoted
        return True

    @property
    def champion(self) -> str:
        """The version now recommended: the last one approved by a person, or passed by the gate."""
        champion = FIRST_CHAMPION
        for version in (item.name for item in self.program.versions):
            if version in self.decided:
                champion = version if self.decided[version].approved else champion
            elif version in self.verdicts and not self.by_person:
                champion = version if self.verdicts[version].promoted else champion
        return champion

    def champion_option(self, standing: Sequence[str]) -> dict[str, str]:
        """The `champion` option of a stage, for a champion that a person chose from `standing`.

        Where the gate decided, stages read the champion from the last verdict
        (`StageContext.champion`) instead, so that the option changes no fingerprint.
        """
        return {"champion": standing[-1]} if standing and standing[-1] in self.decided else {}

    def awaited(self, version: str) -> WaitingForDecision | None:
        """The pending decision on `version` that the next version waits for, if there is one."""
        if not self.by_person or version not in self.verdicts or version in self.decided:
            return None
        verdict = self.verdicts[version].values["verdict"]
        return WaitingForDecision(version, verdict, self.program.workspace)


def decide(
    workspace: Path, version: str, *, approved: bool, reason: str = "", by: str | None = None
) -> Decision:
    """Record a person's decision on the current verdict on `version`.

    A rejection needs a reason. A decision may be changed until the next version has begun.

    Args:
        by: who decides; by default the user of this process.

    Raises:
        AlignError: there is no verdict yet, a rejection has no reason, or the next version has
            begun, without a decision or under the opposite one.
    """
    verdict = find_verdict(workspace, version)
    if verdict is None:
        raise AlignError(
            f"there is nothing to decide: {version} has no verdict yet",
            remedy="`align status` shows how far it is",
        )
    if not approved and not reason.strip():
        raise AlignError("a rejection needs a reason", remedy=f"align reject {version} --reason ..")
    before = find_decision(workspace, version)
    if before is None and _next_began(workspace, version) and not _waits(workspace):
        raise AlignError(
            f"the gate decided on {version}, and the next version has begun from that",
            remedy="decide on the newest version; to go back to an older one, reject those after",
        )
    if before is not None and before.approved != approved and _next_began(workspace, version):
        word = "approved" if before.approved else "rejected"
        raise AlignError(
            f"{version} was {word} by {before.by} on {before.when}, and the next version has begun",
            remedy="finish or discard the next version first",
        )
    decision = Decision(
        version, approved, reason.strip(), by or user_name(), now(), verdict.fingerprint
    )
    atomic_write_json(_path(workspace, version), as_record(decision))
    return decision


def find_decision(workspace: Path, version: str) -> Decision | None:
    """The decision on the current verdict on `version`; one on an older verdict does not count.

    Raises:
        AlignError: the record is damaged.
    """
    path = _path(workspace, version)
    if not path.is_file():
        return None
    remedy = f"remove the file and decide again: align approve {version}"
    decision = read_as(Decision, path, remedy)
    if decision.version != version:
        whose = f"the decision on {decision.version}"
        raise DamagedError(whose, where=str(path), remedy=remedy)
    verdict = find_verdict(workspace, version)
    return decision if verdict and verdict.fingerprint == decision.fingerprint else None


def find_verdict(workspace: Path, version: str) -> Verdict | None:
    """The gate's current verdict on `version`, or None if there is none yet."""
    ledger = Ledger(workspace)
    manifest = ledger.current(version, "promote")
    if manifest is None:
        return None
    directory = ledger.committed_dir(version, "promote", manifest.fingerprint)
    values = read_object(directory / "decision.json", REPEAT)
    if not isinstance(values.get("promoted"), bool) or not isinstance(values.get("verdict"), str):
        where = str(directory / "decision.json")
        raise DamagedError("a verdict without its words", where=where, remedy=REPEAT)
    return Verdict(manifest.fingerprint, values)


def _next_began(workspace: Path, version: str) -> bool:
    following = f"rlhf-v{int(version.removeprefix('rlhf-v')) + 1}"
    return any((workspace / "versions" / following).glob("*/attempts/*.json"))


def _waits(workspace: Path) -> bool:
    """Whether the program waits for people's decisions, by the settings of its last run."""
    return not is_workspace(workspace) or kept_program(workspace).promote.approval == "person"


def _path(workspace: Path, version: str) -> Path:
    return workspace / "approvals" / f"{version}.json"
