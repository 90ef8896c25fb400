"""Sets the outputs of a stage aside, as a superseded attempt, so that it is run again."""

from __future__ import annotations

from pathlib import Path

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.plan import downstream


def set_aside(program: ProgramConfig, version: str, stage: str) -> list[Path]:
    """Set aside the outputs of a stage and of everything in its version that depends on it.

    Only outputs of the present configuration move; those of other settings stay. The caller must
    hold the workspace. An intake that runs again takes the batches it took before and those that
    wait by then. Later versions run again where their inputs change.

    Returns:
        Where the old outputs are now.

    Raises:
        AlignError: the version has no such stage.
    """
    fingerprints = Fingerprints.load(program)
    plan = fingerprints.plan
    stages = [node.stage for node in plan if node.version == version]
    if stage not in stages:
        raise AlignError(
            f"no stage {stage!r} in {version}",
            remedy=f"its stages: {', '.join(stages)}" if stages else "see `align status`",
        )
    done = [
        fingerprints.manifest(node.version, node.stage)
        for node in downstream(plan, (version, stage))
        if node.version == version
    ]
    # In reverse order: after a kill half-way the next call still finds the earlier stages.
    moved = [
        fingerprints.ledger.supersede(manifest.version, manifest.stage, manifest.fingerprint)
        for manifest in reversed(done)
        if manifest is not None
    ]
    if stage == "intake" and program.intake.source == "inbox":
        from alignment.preferences.store import PreferenceStore

        # Last: a batch released while an intake still counts would enter two versions.
        PreferenceStore(program.workspace / "preferences").release(version)
    return [path for path in reversed(moved) if path is not None]
