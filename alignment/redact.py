"""Addresses without their passwords: for terminals, logs and files (servers of MLflow, Prefect)."""

from __future__ import annotations

import re

HIDDEN = "***"
# A password may itself hold / and @: everything up to the last @ of the word is taken for it.
_LOGIN = re.compile(r"(://[^\s/:@]*):\S*@")
_PARAMETER = re.compile(r"([?&](?:password|passwd|pwd|token|secret|sslpassword)=)[^&\s'\"]+", re.I)


def redact(text: str) -> str:
    """`text` with the passwords of all addresses in it replaced by `***`.

    `postgresql://u:PASSWORD@host/db` becomes `postgresql://u:***@host/db`.
    """
    return _PARAMETER.sub(rf"\g<1>{HIDDEN}", _LOGIN.sub(rf"\g<1>:{HIDDEN}@", text))
