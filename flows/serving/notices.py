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
    """Looks again and again, and says what is new.

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
        self._said = ""
        self._waits = False

    def look(self, say: Say) -> None:
        """One look."""
        text = self._read()
        if text != self._text or self._waits:
            self._text = text
            self._edited(say)
        unheard = after_the_last(kept_program(self._workspace))
        if unheard is not None:
            self._once(unheard, say)

    def _edited(self, say: Say) -> None:
        self._waits = False
        try:
            new = load_program(self._config, self._overrides)
            kept = kept_program(self._workspace)
            differ = changes(_settings(kept), _settings(new))
            if new.versions[: len(kept.versions)] != kept.versions:
                differ.append("versions that were there before")
            if differ:
                some = "; ".join(differ[:SHOWN]) + ("; …" if len(differ) > SHOWN else "")
                self._once(
                    f"{self._config} was edited, and that is not in force ({some}): stop with "
                    "Ctrl-C or `align down`, then serve it again",
                    say,
                )
                return
            added = [version.name for version in new.versions[len(kept.versions) :]]
            if added:
                self._add(new, added, say)
        except AlignError as error:
            self._once(f"{self._config} was edited, and that is not in force: {error}", say)

    def _add(self, program: ProgramConfig, added: list[str], say: Say) -> None:
        preflight(program)
        try:
            with workspace_lock(self._workspace):
                keep_program(program)
        except LockedError:
            self._waits = True
            self._once(f"{', '.join(added)} is added when the present run ends", say)
            return
        self._once(f"{', '.join(added)} added from {self._config}", say)

    def _once(self, message: str, say: Say) -> None:
        if message != self._said:
            self._said = message
            say(message)

    def _read(self) -> bytes:
        try:
            return self._config.read_bytes()
        except OSError:
            return b""


def _settings(program: ProgramConfig) -> dict[str, Any]:
    return program.model_dump(mode="json", exclude={"versions", "workspace"})
