"""Cron expressions and time zones, checked when they are read and not when a clock needs them."""

from __future__ import annotations

import difflib
import re
import zoneinfo
from datetime import datetime
from functools import cache

from cronsim import CronSim, CronSimError

FIELDS = {"minute": 60, "hour": 24, "day": 31, "month": 12, "weekday": 7}
"""The fields of a cron expression, and how many values each has."""


def check_cron(expression: str) -> None:
    """Raise ValueError unless `expression` has five fields and a day on which it fires."""
    fields = expression.split()
    if len(fields) != len(FIELDS):
        raise ValueError(f"a cron expression has five fields: {', '.join(FIELDS)}")
    for (name, size), field in zip(FIELDS.items(), fields, strict=True):
        if any(int(step) > size for step in re.findall(r"/(\d+)", field)):
            raise ValueError(f"{field!r}: a {name} has {size} values, and no step is longer")
    # What Prefect's reader of cron expressions does not know.
    if re.search(r"\dL|W\b|[^\x20-\x7e]", expression.upper()):
        raise ValueError(f"{expression!r} is no cron expression that Prefect understands")
    try:
        next(CronSim(expression, datetime(2024, 1, 1)))
    except (CronSimError, StopIteration) as error:
        why = str(error) or "no such day ever comes"
        raise ValueError(f"{expression!r} is no cron expression: {why}") from None


@cache
def _zones() -> set[str]:
    """The names in the database, which is many files: reading it takes longer than all else."""
    return zoneinfo.available_timezones()


def check_timezone(name: str) -> None:
    """Raise ValueError unless `name` is a time zone of the IANA database."""
    known = _zones()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "it is called like Europe/Berlin, or UTC"
        raise ValueError(f"no time zone {name!r}: {hint}")
