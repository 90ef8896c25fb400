"""Where guards stand in the plan: after the main models, and never run beside what they need."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignment.config.load import load_program
from alignment.pipeline.approval import Decisions
from alignment.pipeline.plan import build_plan
from alignment.pipeline.shared_stages import groups

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.yaml"


def nodes(tmp_path: Path, share: float, *more: str) -> list[list[str]]:
    settings = [f"workspace={tmp_path}", f"rewards.guard_share={share}", *more]
    program = load_program(DEMO, settings)
    plan = build_plan(program, Decisions(program))
    mine = [node for node in plan if node.version == "rlhf-v3"]
    return [[node.stage for node in group] for group in groups(mine, program)]


def test_main_models_side_by_side_then_their_guards(tmp_path: Path) -> None:
    together = [group for group in nodes(tmp_path, 0.2) if len(group) > 1]
    assert together == [
        ["reward_helpfulness", "reward_safety"],
        ["guard_helpfulness", "guard_safety"],
        ["evaluate", "collect"],
    ]


@pytest.mark.parametrize(("engine", "beside"), [("vllm", False), ("endpoint", True)])
def test_two_servers_of_ours_never_want_the_same_memory(
    tmp_path: Path, engine: str, beside: bool
) -> None:
    served = [f"inference.engine={engine}", "inference.endpoint.url=http://127.0.0.1:1"]
    found = nodes(tmp_path, 0.0, *served)
    assert (["evaluate", "collect"] in found) == beside
    assert (found[-3:] == [["evaluate"], ["promote"], ["collect"]]) == (not beside)


def test_no_share_no_guard(tmp_path: Path) -> None:
    together = [group for group in nodes(tmp_path, 0.0) if len(group) > 1]
    assert together == [["reward_helpfulness", "reward_safety"], ["evaluate", "collect"]]


def test_earlier_models_are_measured_beside_the_new_one(tmp_path: Path) -> None:
    program = load_program(DEMO, [f"workspace={tmp_path}"])
    plan = build_plan(program, Decisions(program))
    inputs = next(node.inputs for node in plan if node.key == "rlhf-v3/reward_safety")
    assert inputs["previous_reward"] == ("rlhf-v2", "reward_safety")
    assert inputs["earlier_reward/rlhf-v1"] == ("rlhf-v1", "reward_safety")


@pytest.mark.parametrize("name", ["hh", "llama2"])
def test_programs_for_real_preferences_have_an_independent_judge(name: str) -> None:
    program = load_program(DEMO.parent / f"{name}.yaml")
    assert program.rewards.guard_share > 0
    assert "guard" in program.promote.judges
    stages = {node.stage for node in build_plan(program, Decisions(program))}
    assert {"guard_helpfulness", "guard_safety"} <= stages
