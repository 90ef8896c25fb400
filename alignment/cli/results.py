"""The committed directories that comparisons, pictures and reports are drawn from."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError
from alignment.operations.status import done_stages
from alignment.pipeline.approval import Decisions
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.node import STUDENT
from alignment.pipeline.plan import policy_key

if TYPE_CHECKING:
    from alignment.reporting.comparison import Comparison

log = logging.getLogger("alignment")


def evaluated_stages(program: ProgramConfig, versions: Sequence[str]) -> dict[str, dict[str, Path]]:
    """`done_stages` of the versions that are evaluated, or of those named.

    Raises:
        AlignError: nothing is evaluated yet, or a named version is not.
    """
    done = done_stages(program, any_code=True)
    evaluated = {name: stages for name, stages in done.items() if "evaluate" in stages}
    if not evaluated:
        raise AlignError(
            "no version is evaluated yet", remedy="`align run CONFIG`, then compare again"
        )
    for name in versions:
        check_version(program, name)
        if name not in evaluated:
            raise AlignError(f"{name} is not evaluated yet", remedy="see `align status`")
    today = Fingerprints.load(program)
    older = [name for name in (versions or evaluated) if today.manifest(name, "evaluate") is None]
    if older:
        log.warning(
            "made by older code, or before preferences were withdrawn or restored; a run would "
            "look again: %s",
            ", ".join(older),
        )
    return {name: evaluated[name] for name in (versions or evaluated)}


def compared(program: ProgramConfig, stages: Mapping[str, Mapping[str, Path]]) -> Comparison:
    """The versions of `evaluated_stages` side by side; with people's decisions."""
    from alignment.reporting.comparison import compare

    decisions = Decisions.load(program)
    decided = any("promote" in done for done in stages.values())
    return compare(
        stages,
        cost=program.cost,
        champion=decisions.champion if decided else None,
        words={name: asdict(word) for name, word in decisions.decided.items() if name in stages},
        every=done_stages(program, any_code=True),
    )


def check_version(program: ProgramConfig, name: str) -> None:
    """Say so if the program has no such version.

    Raises:
        AlignError: naming the nearest version.
    """
    if name not in program.version_names:
        near = difflib.get_close_matches(name.lower(), program.version_names, n=1)
        raise AlignError(
            f"program {program.name} has no version {name!r}",
            remedy=f"did you mean {near[0]}?" if near else ", ".join(program.version_names),
        )


def policy_dir(program: ProgramConfig, name: str) -> Path:
    """The model directory of a version; `champion` is the version now recommended, and
    `rlhf-v3/student` the smaller model that learned beside it.

    Raises:
        AlignError: no such version, or it is not trained yet.
    """
    done = done_stages(program, any_code=True)
    if name == "champion":
        name = standing(program)
    version, _, arm = name.partition("/")
    check_version(program, version)
    if arm not in ("", STUDENT) or (arm and program.finetune.student is None):
        raise AlignError(
            f"{version} has no {arm!r}", remedy="name a version, or VERSION/student with a student"
        )
    version, stage = (version, STUDENT) if arm else policy_key(program, version)
    if stage not in done.get(version, {}):
        raise AlignError(f"{name} is not trained yet", remedy="see `align status`")
    return done[version][stage] / "model"


def standing(program: ProgramConfig) -> str:
    """The version now recommended: by a person's word or the gate's.

    Raises:
        AlignError: no decision was made yet.
    """
    decisions = Decisions.load(program)
    if not decisions.verdicts:
        raise AlignError(
            "there is no champion yet", remedy="`align run` until a version is promoted"
        )
    return decisions.champion
