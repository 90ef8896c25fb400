"""The table of `align lineage`."""

from __future__ import annotations

from typing import Any

import pytest
from fake_program import run_all

from alignment.cli.lineage import lineage


def test_no_name_is_torn_in_eighty_columns(
    make_program: Any,
    stages: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = make_program()
    run_all(program)
    monkeypatch.setenv("COLUMNS", "80")
    lineage("rlhf-v2", workspace=program.workspace)
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 80
    line = "  from sft/finetune, base/prepare, reward_helpfulness, reward_safety"
    assert line in told.splitlines()
