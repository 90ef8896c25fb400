"""How much is invented: a fixed choice in every run of the tests, far more with $ALIGN_FUZZ."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

GIVEN = os.environ.get("ALIGN_FUZZ")
EXAMPLES = int(GIVEN or 60)

fuzzing = settings(
    max_examples=EXAMPLES,
    derandomize=GIVEN is None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
"""For every test in `tests/fuzz`."""
