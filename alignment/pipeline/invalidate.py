"""Have a stage done again: its outputs are set aside, kept as a superseded attempt."""

from __future__ import annotations

from pathlib import Path

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.plan import downstream


def set_aside(program: ProgramConfig, version: str, stage: str) -> list[Path]:
    """Set the outputs of a stage, and of what depends on it in its version, aside.

    Those that the present configuration asks for: what other settings made stays where it is.
    Only with the workspace held. An intake that is done again takes in what waits by then, besides
    what it took before. Later versions are done again where their inputs come out different.

    Returns:
        Where the old outputs are now.

    Raises:
        AlignError: the version has no such stage.
    """
    known = Fingerprints.load(program)
    plan = known.plan
    stages = [node.stage for node in plan if node.version == version]
    if stage not in stages:
        raise AlignError(
            f"no stage {stage!r} in {version}",
            remedy=f"its stages: {', '.join(stages)}" if stages else "see `align status`",
        )
    done = [
        known.manifest(node.version, node.stage)
        for node in downstream(plan, (version, stage))
        if node.version == version
    ]
    # The last first: a kill on the way leaves what the next call needs to find the others.
    moved = [
        known.ledger.supersede(found.version, found.stage, found.fingerprint)
        for found in reversed(done)
        if found is not None
    ]
    if stage == "intake" and program.intake.source == "inbox":
        from alignment.preferences.store import PreferenceStore

        # Last: batches that are free while an intake still counts would come into two versions.
        PreferenceStore(program.workspace / "preferences").release(version)
    return [path for path in reversed(moved) if path is not None]
