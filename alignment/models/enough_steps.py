"""Refuses a training of a handful of optimiser steps: it would end as it began, with a figure."""

from __future__ import annotations

from collections.abc import Callable

from alignment.errors import ConfigError

FEWEST = 20
"""Fewer steps are an error: most of them would be warm-up."""
FEW = 100
"""Fewer are said."""


def check_steps(
    steps: int, per_epoch: int, epochs: int, *, what: str, key: str, say: Callable[[str], None]
) -> None:
    """Refuse fewer than `FEWEST` steps, and say when there are fewer than `FEW`.

    Args:
        per_epoch: rows of an epoch: comparisons, conversations, or windows packed with some.
        what: is trained, such as "the safety reward model".
        key: of the batch size, such as `rewards.batch`.

    Raises:
        ConfigError: there are too few; the remedy is a batch size that gives enough.
    """
    found = f"{what} takes {steps} optimiser steps: {per_epoch:,} rows, epochs: {epochs}"
    if steps >= FEWEST:
        if steps < FEW:
            say(f"{found}; under {FEW} it learns little")
        return
    largest = per_epoch * epochs // FEWEST
    raise ConfigError(
        f"{found}; under {FEWEST} it would learn nothing",
        where=key,
        remedy=f"set it to {largest} at most, or give it more data"
        if largest
        else f"give it more data, at least {FEWEST} rows in all epochs",
    )
