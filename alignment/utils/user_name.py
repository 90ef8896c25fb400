"""Who is at the keyboard, for records of what people decided."""

from __future__ import annotations

import getpass


def user_name() -> str:
    """The user's login name, or `unknown`."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        return "unknown"
