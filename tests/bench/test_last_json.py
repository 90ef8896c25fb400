"""How the benchmarks of two sides read what each side says."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[1] / "benchmarks" / "last_json.py"
last_json = runpy.run_path(str(FILE))["last_json"]


def test_the_last_line_that_is_json_counts() -> None:
    program = (
        "import os; print('{\"n\": 1}'); print('{\"n\": %s}' % os.environ['N']); print('done')"
    )
    assert last_json([sys.executable, "-c", program], {"N": "2"}) == {"n": 2}


@pytest.mark.parametrize("program", ["print('no figures')", "print('{}'); raise KeyError('why')"])
def test_a_side_that_fails_says_why(program: str) -> None:
    with pytest.raises(SystemExit, match="failed") as failed:
        last_json([sys.executable, "-c", program])
    assert ("KeyError: 'why'" in str(failed.value)) == ("raise" in program)
