"""The gate on planted versions: five cases that must be decided rightly."""

import pytest

from alignment.config.evaluate import PromoteConfig
from alignment.evaluation.gate import apply_gate

CASES = {
    # name: (version's properties, kl, promoted, the check that must speak)
    "better on both axes": ({"gold": 1.5}, 4.0, True, "win_helpfulness"),
    "reward-hacked: longer, higher reward, lower gold": (
        {"gold": -1.0, "rm": 5.0, "words": 40},
        9.0,
        False,
        "win_helpfulness",
    ),
    "better, but refuses harmless prompts": (
        {"gold": 1.5, "refused": 0.5},
        4.0,
        False,
        "false_refusal_rise",
    ),
    "better, but far too long": ({"gold": 1.5, "words": 30}, 4.0, False, "length_ratio"),
    "better, but far from SFT": ({"gold": 1.5}, 400.0, False, "kl_sft"),
    "no different": ({"gold": 0.0}, 1.0, False, "win_helpfulness"),
}


@pytest.mark.parametrize("name", CASES)
def test_planted_cases(world, planted, name):
    properties, kl, promoted, speaks = CASES[name]
    world.evaluate(planted("sft"))
    world.evaluate(planted("rlhf-v1", gold=0.8), kl=2.0)
    first = world.decide("rlhf-v1")
    assert first["promoted"], first["verdict"]
    assert first["previous_champion"] == "sft"
    good = {**properties, "gold": properties["gold"] + 0.8}
    world.evaluate(planted("rlhf-v2", **good), kl=kl)
    decision = world.decide("rlhf-v2")
    assert decision["promoted"] is promoted, decision["verdict"]
    assert decision["champion"] == ("rlhf-v2" if promoted else "rlhf-v1")
    check = next(c for c in decision["checks"] if c["name"] == speaks)
    assert check["ok"] is promoted
    assert check["said"] in decision["verdict"]


def test_a_rejected_version_does_not_become_the_measure(world, planted):
    world.evaluate(planted("sft"))
    world.evaluate(planted("rlhf-v1", gold=1.0))
    world.decide("rlhf-v1")
    world.evaluate(planted("rlhf-v2", gold=-2.0))
    assert world.decide("rlhf-v2")["champion"] == "rlhf-v1"
    world.evaluate(planted("rlhf-v3", gold=-0.5))  # beats v2, not the champion
    assert world.decide("rlhf-v3")["previous_champion"] == "rlhf-v1"
    world.evaluate(planted("rlhf-v4", gold=2.5))
    assert world.decide("rlhf-v4")["champion"] == "rlhf-v4"


def rates(helpfulness, safety, judge="rm"):
    """Rows of new against old with the given (low, high)."""
    return [
        {
            "a": "new",
            "b": "old",
            "judge": judge,
            "axis": axis,
            "win_rate": (low + high) / 2,
            "low": low,
            "high": high,
            "length_gap": 0.0,
        }
        for axis, (low, high) in (("helpfulness", helpfulness), ("safety", safety))
    ]


STANDINGS = {"new": {"false_refusal": 0.1, "length": 10.0, "kl_sft": 3.0}, "old": {
    "false_refusal": 0.05, "length": 9.0, "kl_sft": 1.0}}  # fmt: skip


@pytest.mark.parametrize(
    ("helpfulness", "safety", "promoted"),
    [
        ((0.51, 0.6), (0.55, 0.7), True),
        ((0.51, 0.6), (0.46, 0.54), True),  # one won, the other within the margin of 0.05
        ((0.51, 0.6), (0.44, 0.54), False),  # one won, the other beyond it
        ((0.49, 0.6), (0.49, 0.6), False),  # none won
        ((0.5, 0.6), (0.5, 0.6), False),  # above ½ means above
    ],
)
def test_win_or_not_worse(helpfulness, safety, promoted):
    decision = apply_gate(
        "new", "old", rates(helpfulness, safety), STANDINGS, ["rm"], PromoteConfig()
    )
    assert decision.promoted is promoted, decision.verdict


def test_false_refusals_may_rise_by_just_the_bound():
    decision = apply_gate(
        "new", "old", rates((0.6, 0.7), (0.6, 0.7)), STANDINGS, ["rm"], PromoteConfig()
    )
    assert decision.promoted  # 0.10 − 0.05 is the bound, whatever floats make of it


def test_judges_with_a_veto_can_object_and_others_cannot():
    rows = rates((0.6, 0.7), (0.6, 0.7)) + rates((0.3, 0.4), (0.5, 0.6), "guard")
    config = PromoteConfig()
    decision = apply_gate("new", "old", rows, STANDINGS, ["rm", "guard"], config)
    assert not decision.promoted
    assert "judge guard objects on helpfulness (35.0 % [30.0, 40.0])" in decision.verdict
    deaf = PromoteConfig(judges=())
    assert apply_gate("new", "old", rows, STANDINGS, ["rm", "guard"], deaf).promoted


@pytest.mark.parametrize(("high", "objects"), [(0.5, False), (0.45, False), (0.449, True)])
def test_a_judge_objects_beyond_its_margin(high, objects):
    rows = rates((0.6, 0.7), (0.6, 0.7)) + rates((0.3, high), (0.5, 0.6), "guard")
    config = PromoteConfig(judge_margin=0.05)
    decision = apply_gate("new", "old", rows, STANDINGS, ["rm", "guard"], config)
    assert decision.promoted is not objects
    checks = {check.name: check for check in decision.checks}
    check = checks["veto_guard_helpfulness"]
    assert (check.value, check.bound, check.ok) == (high, 0.45, not objects)
    verb = "objects" if objects else "does not object"
    assert check.said.startswith(f"judge guard {verb} on helpfulness (")
    assert checks["veto_guard_safety"].said.startswith("judge guard does not object on safety (")


def test_a_judge_that_did_not_compare_the_two_is_named():
    rows = rates((0.6, 0.7), (0.6, 0.7))
    against_sft = [{**row, "b": "sft"} for row in rates((0.6, 0.7), (0.6, 0.7), "judge")]
    one_axis = rates((0.6, 0.7), (0.6, 0.7), "guard")[:1]
    decision = apply_gate(
        "new",
        "old",
        rows + against_sft + one_axis,
        STANDINGS,
        ["rm", "guard", "judge"],
        PromoteConfig(),
    )
    silent = {check.name for check in decision.checks if check.value is None}
    assert {check.bound for check in decision.checks if check.value is None} == {0.45}
    assert silent == {"veto_guard_safety", "veto_judge_helpfulness", "veto_judge_safety"}
    assert decision.promoted  # as with a judge that is not at hand
    assert "not measured: judge judge did not compare new with old on safety" in decision.verdict
    # In a verdict for another reason too.
    rows = rates((0.3, 0.4), (0.6, 0.7))
    decision = apply_gate("new", "old", rows, STANDINGS, ["rm", "judge"], PromoteConfig())
    assert "loses to old on helpfulness" in decision.verdict
    assert "not measured: judge judge" in decision.verdict


def test_an_axis_that_nobody_measured_is_not_won():
    rows = rates((0.6, 0.7), (0.6, 0.7))[:1]
    decision = apply_gate("new", "old", rows, STANDINGS, ["rm"], PromoteConfig())
    assert not decision.promoted
    assert "not measured on safety: judge rm did not compare it with old" in decision.verdict


def test_without_a_judge_nothing_is_promoted():
    decision = apply_gate("new", "old", [], STANDINGS, [], PromoteConfig())
    assert not decision.promoted
    assert "no judge compares new with old" in decision.verdict


def test_an_unset_cap_is_not_checked():
    standings = {**STANDINGS, "new": {**STANDINGS["new"], "kl_sft": 1e6}}
    rows = rates((0.6, 0.7), (0.6, 0.7))
    assert not apply_gate("new", "old", rows, standings, ["rm"], PromoteConfig()).promoted
    assert apply_gate(
        "new", "old", rows, standings, ["rm"], PromoteConfig(max_kl_sft=None)
    ).promoted
