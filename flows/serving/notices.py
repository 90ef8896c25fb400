"""What the screen of `align serve` says while it runs: the file was edited, a person is needed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from alignment.config.load import load_program
from alignment.config.program import ProgramConfig
from alignment.errors import AlignError, LockedError
from alignment.pipeline.preflight import preflight
from alignment.pipeline.readiness import after_the_last
from alignment.pipeline.reasons import changes
from alignment.pipeline.workspace import keep_program, kept_program
from alignment.utils.locks import workspace_lock

SHOWN = 4  # changed settings that are named

Say = Callable[[str], None]


class Notices:
    """Looks again and again, and says what is new: each thing once, as long as it holds.

    A version that was added to the file is taken over at once: nothing that is done changes by it.
    Any other edit needs a restart, for nobody can tell whether it is finished.

    Args:
        config: the program's YAML file.
        overrides: `--set` of the command line.
    """

    def __init__(self, config: Path, overrides: Sequence[str], workspace: Path):
        self._config = config
        self._overrides = overrides
        self._workspace = workspace
        self._text: bytes | None = None
        self._said: dict[str, str | None] = {}
        self._waits = False

    def look(self, say: Say) -> None:
        """One look. That the workspace cannot be read is said too, and ends nothing."""
        text = self._read()
        if text != self._text or self._waits:
            self._text = text
            self._once("file", self._edited(), say)
        try:
            unheard = after_the_last(kept_program(self._workspace))
        except (AlignError, OSError) as error:
            unheard = str(error)
        self._once("deliveries", unheard, say)

    def _edited(self) -> str | None:
        """What became of an edit, if there was one."""
        self._waits = False
        try:
            new = load_program(self._config, self._overrides)
            kept = kept_program(self._workspace)
            differ = changes(_settings(kept), _settings(new))
            if new.versions[: len(kept.versions)] != kept.versions:
                differ.append("versions that were there before")
            if differ:
                some = "; ".join(differ[:SHOWN]) + ("; …" if len(differ) > SHOWN else "")
                return (
                    f"{self._config} was edited, and that is not in force ({some}): stop with "
                    "Ctrl-C or `align down`, then serve it again"
                )
            added = [version.name for version in new.versions[len(kept.versions) :]]
            return self._add(new, added) if added else None
        except AlignError as error:
            return f"{self._config} was edited, and that is not in force: {error}"

    def _add(self, program: ProgramConfig, added: list[str]) -> str:
        preflight(program)
        try:
            with workspace_lock(self._workspace):
                keep_program(program)
        except LockedError:
            self._waits = True
            return f"{', '.join(added)} is added when the present run ends"
        return f"{', '.join(added)} added from {self._config}"

    def _once(self, about: str, message: str | None, say: Say) -> None:
        """Say `message`, unless it is the last one about the same."""
        if message != self._said.get(about) and message is not None:
            say(message)
        self._said[about] = message

    def _read(self) -> bytes:
        try:
            return self._config.read_bytes()
        except OSError:
            return b""


def _settings(program: ProgramConfig) -> dict[str, Any]:
    return program.model_dump(mode="json", exclude={"versions", "workspace"})
