"""The errors that a user sees without a traceback."""

from __future__ import annotations

import re

HIDDEN = "***"
# A password may contain / and @, so it extends to the last @ of the word.
_LOGIN = re.compile(r"(://[^\s/:@]*):\S*@")
_PARAMETER = re.compile(r"([?&](?:password|passwd|pwd|token|secret|sslpassword)=)[^&\s'\"]+", re.I)


def redact(text: str) -> str:
    """`text` with the passwords of all addresses in it replaced by `***`.

    `postgresql://u:PASSWORD@host/db` becomes `postgresql://u:***@host/db`.
    """
    return _PARAMETER.sub(rf"\g<1>{HIDDEN}", _LOGIN.sub(rf"\g<1>:{HIDDEN}@", text))


class AlignError(Exception):
    """An error that the user can fix. Passwords in its texts are hidden.

    Args:
        message: what is wrong, in one sentence.
        where: file, line, row or config key.
        remedy: what to do next.
    """

    exit_code = 1
    failure: str | None = None
    """Kind of the failure (`alignment.execution.failures`), if another process found it."""

    def __init__(self, message: str, *, where: str | None = None, remedy: str | None = None):
        self.message = redact(message)
        self.where = None if where is None else redact(where)
        self.remedy = None if remedy is None else redact(remedy)
        super().__init__(self.message)

    def __str__(self) -> str:
        parts = [self.message]
        if self.where:
            parts.append(f"  where:  {self.where}")
        if self.remedy:
            parts.append(f"  remedy: {self.remedy}")
        return "\n".join(parts)


class ConfigError(AlignError):
    """A wrong, missing or impossible setting."""

    exit_code = 2


class DataError(AlignError):
    """Input data that cannot be used as it is."""

    exit_code = 3


class DamagedError(DataError):
    """A file of the workspace is not what was written; what is being read in is not the cause."""


class StoreError(DamagedError):
    """The preference store is damaged; the current delivery is not the cause."""


class LockedError(AlignError):
    """Another process holds the workspace."""

    exit_code = 4


class StageError(AlignError):
    """A stage failed; the message says why."""

    exit_code = 5


class Terminated(KeyboardInterrupt):
    """The process got a SIGTERM and ends as after Ctrl-C."""
