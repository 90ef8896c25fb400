"""The committed directories that comparisons, pictures and reports are drawn from."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError
from alignment.plan import build_plan, policy_of
from alignment.status import done_stages


def evaluated_stages(program: ProgramConfig, versions: Sequence[str]) -> dict[str, dict[str, Path]]:
    """`done_stages` of the versions that are evaluated, or of those named.

    Raises:
        AlignError: nothing is evaluated yet, or a named version is not.
    """
    found = done_stages(program)
    evaluated = {name: stages for name, stages in found.items() if "evaluate" in stages}
    if not evaluated:
        raise AlignError(
            "no version is evaluated yet", remedy="`align run CONFIG`, then compare again"
        )
    for name in versions:
        check_version(program, name)
        if name not in evaluated:
            raise AlignError(f"{name} is not evaluated yet", remedy="see `align status`")
    return {name: evaluated[name] for name in (versions or evaluated)}


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
    """The model directory of a version; `champion` is the version now recommended.

    Raises:
        AlignError: no such version, or it is not trained yet.
    """
    found = done_stages(program)
    if name == "champion":
        name = champion(program, found)
    check_version(program, name)
    version, stage = policy_of(build_plan(program), name)
    if stage not in found.get(version, {}):
        raise AlignError(f"{name} is not trained yet", remedy="see `align status`")
    return found[version][stage] / "model"


def champion(program: ProgramConfig, found: dict[str, dict[str, Path]]) -> str:
    """The version that the last promotion decision recommends.

    Raises:
        AlignError: no decision was made yet.
    """
    from alignment.files import read_json

    for name in reversed(program.version_names):
        if "promote" in found.get(name, {}):
            return str(read_json(found[name]["promote"] / "decision.json")["champion"])
    raise AlignError("there is no champion yet", remedy="`align run` until a version is promoted")
