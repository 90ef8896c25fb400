"""Digests of what a program reads from outside its workspace, so that changed data are noticed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from alignment.config.program import ProgramConfig
from alignment.pipeline.file_digests import digest_of_0_1, file_digest
from alignment.preferences.sources import part_of
from alignment.utils.files import digest_json
from alignment.utils.import_string import source_of


def external_digest(program: ProgramConfig, module: str) -> str | None:
    """Digest of the files that stage module `module` reads from outside, or None if it reads none.

    Also None where the path does not exist here: it is gone, or names something on a hub.
    `program` has the settings of the node's version applied.
    """
    digest = partial(file_digest, workspace=program.workspace)
    return _digest_with(digest, _outside(program, module))


def unchanged_since(program: ProgramConfig, module: str, recorded: str, moment: float) -> bool:
    """Whether `recorded`, of a release that read large files by their ends only, still holds.

    It does if it is the digest that 0.1 would give and no file was touched after `moment`, a time
    in seconds since 1970.
    """
    paths = _outside(program, module)
    files = [file for path in paths for _, file in _files(path)]
    touched = [
        # A hard link, as the import of a model makes, changes the inode's own time.
        status.st_mtime if status.st_nlink > 1 else max(status.st_mtime, status.st_ctime)
        for status in (file.stat() for file in files)
    ]
    if not touched or max(touched) >= moment:
        return False
    return _digest_with(digest_of_0_1, paths) == recorded


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
    parts = [source_of(part.function) for part in program.ppo.parts]
    locations["ppo"] = [*parts, program.ppo.stop.texts]
    if program.base.source == "path":
        locations["import_base"] = [program.base.path]
        locations["prepare"] = [program.intake.path, program.data.path, program.data.borderline]
    return locations


def _outside(program: ProgramConfig, module: str) -> list[Path]:
    """What stage module `module` reads from outside and is there."""
    locations = _locations(program).get(module, [])
    # Of `DIRECTORY:train` the whole directory counts.
    paths = [part_of(Path(text).expanduser())[0] for text in locations if text]
    return [path for path in paths if path.exists()]


def _digest_with(digest: Callable[[Path], str], paths: list[Path]) -> str | None:
    if not paths:
        return None
    return digest_json([[name, digest(file)] for path in paths for name, file in _files(path)])


def _files(path: Path) -> list[tuple[str, Path]]:
    """Names and paths of a file, or of all files in a directory."""
    if path.is_file():
        return [(path.name, path)]
    return [
        (file.relative_to(path).as_posix(), file)
        for file in sorted(path.rglob("*"))
        if file.is_file()
    ]
