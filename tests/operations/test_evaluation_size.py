"""What `align plan` says of an evaluation's power before anything is prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignment.config.load import check_program
from alignment.operations.evaluation_size import EvaluationSize, evaluation_size
from alignment.pipeline.fingerprints import Fingerprints


@pytest.mark.parametrize(
    ("settings", "prompts"),
    [
        ({}, 300),  # 300 + 120 of helpfulness, 300 of safety
        ({"evaluate": {"prompts_per_domain": 150}}, 150),
        ({"base": {"source": "path", "path": "M"}, "intake": {"source": "inbox"}}, 1000),
    ],
)
def test_the_most_that_the_settings_allow(
    settings: dict[str, Any], prompts: int, tmp_path: Path
) -> None:
    program = check_program({"name": "x", "workspace": str(tmp_path / "w"), **settings})
    size = evaluation_size(program, Fingerprints.load(program))
    assert (size.prompts, size.known) == (prompts, False)
    assert size.promoted[0.55] < size.promoted[0.6]


def test_the_line() -> None:
    size = EvaluationSize(200, False, {0.55: 0.393, 0.6: 0.951}, {0.55: 450, 0.6: 140})
    assert size.line(world=False) == (
        "at most 200 evaluation prompts an axis: a version that truly wins 55 % on both axes is "
        "promoted in 39 % of evaluations (450 prompts: in 80 %), 60 % in 95 %"
    )
    none = EvaluationSize(0, True, {0.55: 0.0, 0.6: 0.0}, {0.55: 450, 0.6: 140})
    assert none.line(world=True).startswith("no evaluation prompts on one axis")
