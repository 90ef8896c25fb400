"""A lack in the data is found when they are made, not by the last version's PPO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignment.config.load import check_program
from alignment.config.vocabulary import DOMAINS
from alignment.errors import AlignError
from alignment.execution.data_check import check_prepared, without_labels
from alignment.execution.runner import Runner
from alignment.preferences.prompts import Prompt, write_prompts
from alignment.utils.json_lines import write_jsonl

ENOUGH = 20  # comparisons of a domain, for as many steps


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Outputs of `base/prepare` with both domains and unlabelled comparisons."""
    prompts = [
        Prompt(messages=[{"role": "user", "content": domain}], domain=domain, category="chat")
        for domain in DOMAINS
    ]
    write_prompts(tmp_path / "prompts.jsonl", prompts)
    rows = [{"domain": domain} for domain in DOMAINS] * ENOUGH
    (tmp_path / "arrivals" / "01").mkdir(parents=True)
    write_jsonl(tmp_path / "arrivals" / "01" / "comparisons.jsonl", rows)
    return tmp_path


def program(tmp_path: Path, **more: Any) -> Any:
    return check_program(
        {
            "name": "x",
            "workspace": str(tmp_path / "w"),
            "base": {"source": "path", "path": "somewhere"},
            "intake": {"source": "split", "path": "data"},
            "versions": [{"name": "rlhf-v1"}, {"name": "rlhf-v2", "ppo": True}],
            "rewards": {"batch": 1},
            **more,
        }
    )


FITTED = {"method": "piecewise", "threshold_for": {"precision": 0.9}}


def test_sound_data_pass(prepared: Path) -> None:
    check_prepared(program(prepared), prepared)
    check_prepared(program(prepared, ppo={"safety_share": 0.5}), prepared)
    check_prepared(program(prepared, sample={"skip_categories": []}), prepared)


@pytest.mark.parametrize(
    ("more", "match", "where"),
    [
        ({"sample": {"skip_categories": ["rhyme"]}}, "names rhyme", None),
        ({"sample": {"skip_categories": ["chat"]}}, "leaves no prompt", None),
        ({"combine": FITTED}, "no comparison says which answer", "combine.threshold_for"),
    ],
)
def test_settings_that_the_data_cannot_serve(
    more: dict[str, Any], match: str, where: str | None, prepared: Path
) -> None:
    with pytest.raises(AlignError, match=match) as caught:
        check_prepared(program(prepared, **more), prepared)
    assert caught.value.where == where


def test_labels_that_a_threshold_is_fitted_to(prepared: Path) -> None:
    rows: list[dict[str, Any]] = [{"domain": domain} for domain in DOMAINS] * ENOUGH
    for name, enough in (("both_safe", False), ("chosen_safe", True), ("both_unsafe", True)):
        labelled = {"domain": "safety", "safety_bin": name}
        write_jsonl(prepared / "arrivals" / "01" / "comparisons.jsonl", [*rows, labelled])
        if enough:
            check_prepared(program(prepared, combine=FITTED), prepared)
        else:
            with pytest.raises(AlignError, match="safety_bin"):
                check_prepared(program(prepared, combine=FITTED), prepared)


def test_too_few_comparisons_for_the_first_reward_models(prepared: Path) -> None:
    """Found before SFT, not by the reward stage after it."""
    rows = [{"domain": "helpfulness"}] * 100 + [{"domain": "safety"}] * 17
    write_jsonl(prepared / "arrivals" / "01" / "comparisons.jsonl", rows)
    with pytest.raises(AlignError, match=r"the safety reward model .* takes 19 .* steps") as caught:
        check_prepared(program(prepared), prepared)
    assert caught.value.where == "rewards.batch"
    check_prepared(program(prepared, rewards={"batch": 1, "epochs": 2}), prepared)
    check_prepared(
        program(prepared, rewards={"batch": 1, "mixture": {"safety_share": 0.5}}), prepared
    )


def test_too_few_comparisons_for_the_first_guards(prepared: Path) -> None:
    rows = [{"domain": domain} for domain in DOMAINS for _ in range(400)]
    write_jsonl(prepared / "arrivals" / "01" / "comparisons.jsonl", rows)
    check_prepared(program(prepared, rewards={"batch": 8}), prepared)
    # A tenth of the helpfulness model's 440 is 44, with three deviations 64: 8 batches of 8.
    with pytest.raises(AlignError, match=r"the helpfulness guard .* takes 8 optimiser steps"):
        check_prepared(program(prepared, rewards={"batch": 8, "guard_share": 0.1}), prepared)
    check_prepared(program(prepared, rewards={"batch": 2, "guard_share": 0.1}), prepared)


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_domain_that_is_missing(domain: str, prepared: Path) -> None:
    other = next(name for name in DOMAINS if name != domain)
    write_prompts(
        prepared / "prompts.jsonl",
        [Prompt(messages=[{"role": "user", "content": "q"}], domain=other)],  # type: ignore[arg-type]
    )
    with pytest.raises(AlignError, match=f"the pool has no {domain} prompt") as caught:
        check_prepared(program(prepared, ppo={"safety_share": 0.5}), prepared)
    assert caught.value.where == "ppo.safety_share"
    only = {"safety_share": 1.0 if other == "safety" else 0.0}
    check_prepared(program(prepared, ppo=only), prepared)
    write_jsonl(prepared / "arrivals" / "01" / "comparisons.jsonl", [{"domain": other}])
    with pytest.raises(AlignError, match=f"no {domain} comparison") as caught:
        check_prepared(program(prepared), prepared)
    assert caught.value.where == "intake.path"


def test_the_runner_checks_before_the_second_stage(make_program: Any, stages: Any) -> None:
    given = make_program(versions=1, sample={"skip_categories": ["rhyme"]})
    with Runner(given) as runner:
        runner.run_node(runner.plan[0])
        with pytest.raises(AlignError, match="names rhyme"):
            runner.run_node(runner.plan[1])
    assert stages.ran == ["base/prepare"]


def test_thresholds_that_unlabelled_data_switch_off_are_named_before_the_run(
    prepared: Path,
) -> None:
    found = without_labels(program(prepared, combine={"method": "piecewise"}), prepared)
    assert found is not None
    assert "label 0 answers" in found
    assert "select.safety_threshold and combine.method: piecewise" in found
    off = {"safety_threshold": None}
    assert without_labels(program(prepared, select=off), prepared) is None
    rows = [{"domain": "safety", "safety_bin": "both_safe"} for _ in range(50)]
    for number in ("02", "03"):
        (prepared / "arrivals" / number).mkdir()
        write_jsonl(prepared / "arrivals" / number / "comparisons.jsonl", rows)
    assert without_labels(program(prepared), prepared) is None
