"""A training of a handful of steps is refused, one of some dozens is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from deliveries_of_people import deliver, rows

from alignment.config.load import check_program
from alignment.config.program import ProgramConfig
from alignment.errors import ConfigError
from alignment.models.enough_steps import check_steps
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.preflight import _check_steps


def check(steps: int, examples: int, epochs: int = 1) -> list[str]:
    said: list[str] = []
    check_steps(steps, examples, epochs, what="the toy", key="toy.batch", say=said.append)
    return said


def test_too_few_are_an_error_with_the_largest_batch_that_would_do() -> None:
    with pytest.raises(ConfigError, match=r"the toy takes 3 optimiser steps: 1,200 rows") as e:
        check(3, 1200)
    assert e.value.where == "toy.batch"
    assert e.value.remedy == "set it to 60 at most, or give it more data"
    assert check(20, 1200) == [
        "the toy takes 20 optimiser steps: 1,200 rows, epochs: 1; under 100 it learns little"
    ]
    assert check(99, 1200)
    assert check(100, 1200) == []
    with pytest.raises(ConfigError, match="toy") as e:
        check(2, 1, epochs=2)
    assert e.value.remedy == "give it more data, at least 20 rows in all epochs"


VERSIONS = {"versions": [{"name": "rlhf-v1", "bag": "previous"}]}


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({}, None),
        ({"sample": {"prompts": 144}}, "finetune.rejection.batch"),
        ({"sample": {"prompts": 160}}, None),
        # A demonstration is mixed in beside each of them.
        ({"sample": {"prompts": 80}, "finetune": {"rejection": {"demonstrations": 1}}}, None),
        # Four answers of each prompt may be taken.
        ({"sample": {"prompts": 40}, "select": {"rule": "threshold"}}, None),
        ({"collect": {"pairs": 1800, "safety_share": 0.1}}, "rewards.batch"),
        ({"collect": {"pairs": 1800, "safety_share": 0.1}, "intake": {"source": "inbox"}}, None),
    ],
)
def test_settings_that_give_too_few_are_refused_before_the_first_stage(
    changed: dict[str, Any], where: str | None, tmp_path: Path
) -> None:
    """Of 144 answers V1 makes 18 steps in two epochs. 180 safety pairs are nine tenths of the
    safety model's mixture: 200 comparisons, four steps of 64."""
    program = toy(tmp_path / "w", changed)
    if where is None:
        _check_steps(program, program, "rlhf-v1")
        return
    with pytest.raises(ConfigError, match="under 20") as error:
        _check_steps(program, program, "rlhf-v1")
    assert error.value.where == where


def toy(workspace: Path, changed: dict[str, Any]) -> ProgramConfig:
    return check_program({"name": "toy", "workspace": str(workspace), **VERSIONS, **changed})


def test_what_people_deliver_beside_few_pairs_is_not_known(tmp_path: Path) -> None:
    program = toy(tmp_path / "w", {"collect": {"pairs": 100}})
    with pytest.raises(ConfigError, match="under 20"):
        _check_steps(program, program, "rlhf-v1")
    deliver(program, "week", rows("week", 20))
    _check_steps(program, program, "rlhf-v1")


def test_a_training_that_is_done_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an older release, which took a handful of steps; the next version may take more."""
    program = toy(tmp_path / "w", {"sample": {"prompts": 144}})
    monkeypatch.setattr(Fingerprints, "manifest", lambda _self, *key: DONE.get(key))
    _check_steps(program, program, "rlhf-v1")
    monkeypatch.setitem(DONE, ("rlhf-v1", "finetune"), None)
    with pytest.raises(ConfigError, match="rlhf-v1's fine-tuning"):
        _check_steps(program, program, "rlhf-v1")


DONE: dict[Any, Any] = {("rlhf-v1", "finetune"): object()}
