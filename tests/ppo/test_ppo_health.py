"""Verdicts on curves made for the purpose, and the early stopping of a run."""

from __future__ import annotations

from typing import Any

from alignment.config.ppo import StopConfig
from alignment.training.ppo.early_stopping import EarlyStopping
from alignment.training.ppo.health import verdicts

WELL = {
    "policy/first_ratio_error": 1e-6,
    "kl/reference": 0.5,
    "policy/entropy": 2.0,
    "answer/tokens": 20.0,
    "answer/cut_share": 0.0,
    "critic/explained_variance": 0.6,
    "policy/clip_share": 0.05,
    "score/mean": 1.0,
}


def levels(rows: list[dict[str, float]]) -> dict[str, str]:
    return {v.name: v.level for v in verdicts(rows, max_new_tokens=32)}


def curve(**ends: tuple[float, float]) -> list[dict[str, float]]:
    """Twenty iterations of good health, some figures going from one value to another."""
    rows = []
    for i in range(20):
        row: dict[str, Any] = dict(WELL)
        for name, (first, last) in ends.items():
            row[name.replace("__", "/")] = first + (last - first) * i / 19
        rows.append(row)
    return rows


def test_good_health_is_said_too() -> None:
    found = verdicts(curve(), max_new_tokens=32)
    assert len(found) == 6
    assert all(verdict.level == "ok" and not verdict.remedy for verdict in found)
    assert verdicts([], max_new_tokens=32) == []


def test_each_illness_is_named_with_its_number_and_a_remedy() -> None:
    cases = {
        "first_ratio": {"policy__first_ratio_error": (0.0, 0.2)},
        "negative_kl": {"kl__reference": (0.0, -2.0)},
        "entropy": {"policy__entropy": (2.0, 0.05)},
        "length": {"answer__tokens": (10.0, 31.0), "answer__cut_share": (0.0, 0.9)},
        "critic": {"critic__explained_variance": (0.0, -0.2)},
        "step_size": {"policy__clip_share": (0.1, 0.6)},
    }
    for name, ends in cases.items():
        rows = curve(**ends)
        ill = {verdict.name: verdict for verdict in verdicts(rows, max_new_tokens=32)}
        assert {n for n, v in ill.items() if v.level != "ok"} == {name}
        assert "ppo." in ill[name].remedy or "algorithm" in ill[name].remedy


def test_reward_up_while_held_out_score_down() -> None:
    rows = curve(score__mean=(0.0, 5.0))
    for number, score in ((0, 1.0), (9, 2.0), (19, 1.0)):
        rows[number] |= {"look/score": score, "look/error": 0.1}
    assert levels(rows)["held_out"] == "bad"
    rows[19]["look/score"] = 1.9  # within two standard errors of the best
    assert levels(rows)["held_out"] == "ok"


def test_it_stops_on_budget_and_patience() -> None:
    stopping = EarlyStopping(StopConfig(kl_budget=3.0, patience=2, look_every=5))
    assert [i for i in range(11) if stopping.due(i)] == [0, 5, 10]
    assert stopping.observe(0, 1.0, 0.0)
    assert stopping.observe(5, 2.0, 9.0)
    assert not stopping.observe(10, 1.5, 9.0)
    assert stopping.reason(1.0) is None
    assert not stopping.observe(15, 2.0, 9.0)
    assert "since iteration 5" in str(stopping.reason(1.0))
    again = EarlyStopping(StopConfig())
    again.restore(stopping.state())
    assert again.state() == stopping.state()
    assert "budget of 3" in str(EarlyStopping(StopConfig(kl_budget=3.0)).reason(3.1))


def test_a_gain_that_the_looks_hardly_confirm_is_none() -> None:
    # The held-out score rises to the end, as that of a guard does that errs like the reward model,
    # but from iteration 10 on by 0.1 where the training reward rises by 0.5.
    looks = [(0, 0.0, 0.0), (5, 0.8, 1.0), (10, 1.2, 1.6), (15, 1.3, 2.1), (20, 1.4, 2.6)]
    alone, sure = (EarlyStopping(StopConfig(patience=2, confirm=share)) for share in (0.0, 0.25))
    assert [alone.observe(*look) for look in looks] == [True] * 5
    assert alone.reason(0.0) is None
    # By hand: 0, 0.8 − 0.25, 1.2 − 0.4, 1.3 − 0.525, 1.4 − 0.65.
    assert [sure.observe(*look) for look in looks] == [True, True, True, False, False]
    assert sure.best_iteration == 10
    assert sure.best is not None
    assert abs(sure.best - 0.8) < 1e-12
    assert "0.25 of the training reward's gain, since iteration 10" in str(sure.reason(0.0))
    # A later gain that is confirmed counts against the best, not against the last look.
    assert not sure.observe(25, 1.5, 2.9)
    assert sure.observe(30, 2.0, 3.1)
    # Where the training reward itself judges, it confirms itself.
    itself = EarlyStopping(StopConfig(confirm=0.5))
    assert [itself.observe(i, x, x) for i, x in enumerate((0.0, 1.0, 0.9))] == [True, True, False]
