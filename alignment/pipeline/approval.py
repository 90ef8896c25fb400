"""A person's word on a version: approved or rejected, kept in the workspace beside the ledger.

    approvals/rlhf-v3.json      {"version", "approved", "reason", "by", "when", "fingerprint"}

The word counts for the verdict it was given on: `fingerprint` is that of the promote stage. Is the
version made again, a new word is needed. The verdict that counts is the one that a run made, or
came by, last (`Ledger.newest`): which one the present configuration asks for follows from the plan,
and the plan from the verdicts. A run passes a version's verdict before it plans the next version;
only before it has, settings that were changed back are judged by the verdict under the others.
What was decided changes the plan: the version after a
rejected one starts from the champion (`alignment.pipeline.plan`).
"""

from __future__ import annotations

import getpass
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError
from alignment.pipeline.ledger import Ledger, now
from alignment.utils.files import atomic_write_json, read_json

FIRST_CHAMPION = "sft"


class WaitingForApproval(AlignError):
    """A version is finished, and a person has to decide before the next one begins."""

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
class Approval:
    """One decision. `by` is who took it, `when` the time in UTC."""

    version: str
    approved: bool
    reason: str
    by: str
    when: str
    fingerprint: str


@dataclass(frozen=True)
class Verdict:
    """What a version's promote stage found, and the fingerprint it has."""

    fingerprint: str
    decision: dict[str, Any]


def decide(
    workspace: Path, version: str, *, approved: bool, reason: str = "", by: str | None = None
) -> Approval:
    """Write down a person's decision on the newest verdict on `version`.

    A rejection needs a reason. A decision may be changed as long as the next version has not begun.

    Raises:
        AlignError: there is no verdict yet, no reason for a rejection, or the next version has
            begun on the strength of another decision.
    """
    verdict = find_verdict(workspace, version)
    if verdict is None:
        raise AlignError(
            f"there is nothing to decide: {version} has no verdict yet",
            remedy="`align status` shows how far it is",
        )
    if not approved and not reason.strip():
        raise AlignError("a rejection needs a reason", remedy=f"align reject {version} --reason ..")
    before = find_approval(workspace, version)
    if before is not None and before.approved != approved and _next_began(workspace, version):
        word = "approved" if before.approved else "rejected"
        raise AlignError(
            f"{version} was {word} by {before.by} on {before.when}, and the next version has begun",
            remedy="finish or discard the next version first",
        )
    made = Approval(version, approved, reason.strip(), by or _user(), now(), verdict.fingerprint)
    atomic_write_json(_path(workspace, version), asdict(made))
    return made


def find_approval(workspace: Path, version: str) -> Approval | None:
    """The decision on the newest verdict on `version`; one on an older verdict does not count.

    Raises:
        AlignError: the record is damaged.
    """
    path = _path(workspace, version)
    if not path.is_file():
        return None
    try:
        found = Approval(**read_json(path))
    except (ValueError, TypeError) as error:
        raise AlignError(
            f"a damaged decision: {error}",
            where=str(path),
            remedy=f"remove the file and decide again: align approve {version}",
        ) from error
    verdict = find_verdict(workspace, version)
    return found if verdict and verdict.fingerprint == found.fingerprint else None


def find_verdict(workspace: Path, version: str) -> Verdict | None:
    """The gate's verdict on `version` that a run made, or came by, last."""
    ledger = Ledger(workspace)
    manifest = ledger.newest(version, "promote")
    if manifest is None:
        return None
    directory = ledger.committed_dir(version, "promote", manifest.fingerprint)
    return Verdict(manifest.fingerprint, read_json(directory / "decision.json"))


def awaited(program: ProgramConfig, version: str) -> WaitingForApproval | None:
    """What has to be decided on `version` before the next one may begin, if anything."""
    if program.promote.approval != "person" or not version.startswith("rlhf-"):
        return None
    verdict = find_verdict(program.workspace, version)
    if verdict is None or find_approval(program.workspace, version) is not None:
        return None
    return WaitingForApproval(version, verdict.decision["verdict"], program.workspace)


def accepted(program: ProgramConfig, version: str) -> bool:
    """Whether a later version may start from `version`; True as long as nothing speaks against it.

    A person's rejection speaks against it, and the gate's, if `promote.parent` is `champion`.
    """
    word = find_approval(program.workspace, version)
    if word is not None:
        return word.approved
    if program.promote.parent == "champion" and program.promote.approval == "gate":
        verdict = find_verdict(program.workspace, version)
        return verdict is None or bool(verdict.decision["promoted"])
    return True


def champion(program: ProgramConfig) -> str:
    """The version now recommended: the last one approved by a person, or passed by the gate."""
    found = FIRST_CHAMPION
    for version in (item.name for item in program.versions):
        word = find_approval(program.workspace, version)
        verdict = find_verdict(program.workspace, version)
        if word is not None:
            found = version if word.approved else found
        elif verdict and verdict.decision["promoted"] and program.promote.approval == "gate":
            found = version
    return found


def _next_began(workspace: Path, version: str) -> bool:
    following = f"rlhf-v{int(version.removeprefix('rlhf-v')) + 1}"
    return any((workspace / "versions" / following).glob("*/attempts/*.json"))


def _path(workspace: Path, version: str) -> Path:
    return workspace / "approvals" / f"{version}.json"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        return "unknown"
