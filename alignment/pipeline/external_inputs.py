"""Digests of what a program reads from outside its workspace, so that changed data are noticed.

One change goes unnoticed: in a file of more than 64 MiB only the size and the two ends are hashed,
so bytes that change in its middle leave the digest as it was.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from alignment.config.program import ProgramConfig
from alignment.utils.files import digest_json, sha256_file
from alignment.utils.import_string import source_of

WHOLE = 64 * 2**20  # bytes; larger files are hashed by their size and their two ends
END = 2**20  # bytes at each end


def external_digest(program: ProgramConfig, module: str) -> str | None:
    """Digest of the files that stage module `module` reads from outside, or None if it reads none.

    Also None where the path does not exist here: it is gone, or names something on a hub.
    `program` has the settings of the node's version applied.
    """
    locations = _locations(program).get(module, [])
    paths = [
        path for path in (Path(text).expanduser() for text in locations if text) if path.exists()
    ]
    if not paths:
        return None
    return digest_json([row for path in paths for row in _files(path)])


def reads_outside(program: ProgramConfig, module: str) -> bool:
    """Whether the settings name something outside that stage module `module` reads."""
    return any(_locations(program).get(module, []))


def _locations(program: ProgramConfig) -> dict[str, list[str | None]]:
    """Stage module → paths it reads from outside."""
    locations: dict[str, list[str | None]] = {}
    if program.rewards.init not in ("latest", "sft", "base"):
        locations["reward"] = [program.rewards.init]
    student = program.finetune.student
    if student is not None:
        locations["student"] = [student.path]
    if program.ppo.parts:
        locations["ppo"] = [source_of(part.function) for part in program.ppo.parts]
    if program.base.source == "path":
        locations["import_base"] = [program.base.path]
        locations["prepare"] = [program.intake.path, program.data.path, program.data.borderline]
    return locations


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
