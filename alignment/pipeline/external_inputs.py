"""What a program takes from outside its workspace, as a digest: changed data are new data."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from alignment.config.program import ProgramConfig
from alignment.utils.files import digest_json, sha256_file
from alignment.utils.import_string import source_of

WHOLE = 64 * 2**20  # files up to this size are read whole; of larger ones the ends and the size
END = 2**20


def external_digest(program: ProgramConfig, module: str) -> str | None:
    """Digest of the files that stage module `module` reads from outside, or None if it reads none.

    None as well where the path is gone or names something on a hub: there is nothing to look at.

    Args:
        program: as the node's version sees it, its own settings applied.
    """
    given = _given(program).get(module, [])
    found = [path for path in (Path(text).expanduser() for text in given if text) if path.exists()]
    if not found:
        return None
    return digest_json([row for path in found for row in _files(path)])


def reads_outside(program: ProgramConfig, module: str) -> bool:
    """Whether stage module `module` is told to read something from outside."""
    return any(_given(program).get(module, []))


def _given(program: ProgramConfig) -> dict[str, list[str | None]]:
    """Stage module → paths it reads from outside."""
    given: dict[str, list[str | None]] = {}
    if program.rewards.init not in ("latest", "sft", "base"):
        given["reward"] = [program.rewards.init]
    student = program.finetune.student
    if student is not None:
        given["student"] = [student.path]
    if program.ppo.parts:
        given["ppo"] = [source_of(part.function) for part in program.ppo.parts]
    if program.base.source == "path":
        given["import_base"] = [program.base.path]
        given["prepare"] = [program.intake.path, program.data.path, program.data.borderline]
    return given


def _files(path: Path) -> list[list[str]]:
    if path.is_file():
        return [[path.name, _digest(path)]]
    return [
        [file.relative_to(path).as_posix(), _digest(file)]
        for file in sorted(path.rglob("*"))
        if file.is_file()
    ]


def _digest(path: Path) -> str:
    status = path.stat()
    return _digest_once(path, status.st_size, status.st_mtime_ns)


@cache
def _digest_once(path: Path, size: int, _changed: int) -> str:
    if size <= WHOLE:
        return sha256_file(path)
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(END))
        file.seek(-END, 2)
        digest.update(file.read(END))
    return digest.hexdigest()
