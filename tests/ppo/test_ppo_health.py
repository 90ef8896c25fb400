"""Verdicts on curves made for the purpose, and the early stopping of a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from alignment.config.ppo import PPOConfig, StopConfig
from alignment.training.ppo.early_stopping import EarlyStopping
from alignment.training.ppo.health import Verdict, verdicts

WELL = {
    "policy/first_ratio_error": 1e-6,
    "kl/reference": 0.5,
    "kl/k3": 0.5,
    "policy/entropy": 2.0,
    "answer/tokens": 20.0,
    "answer/cut_share": 0.0,
    "critic/explained_variance": 0.6,
    "policy/clip_share": 0.05,
    "policy/updated_share": 0.98,
    "critic/updated_share": 0.95,
    "score/mean": 1.0,
    "score/deviation": 0.8,
}


def levels(rows: list[dict[str, float]], **settings: Any) -> dict[str, str]:
    return {v.name: v.level for v in checked(rows, **settings).values()}


def checked(
    rows: list[dict[str, float]], half: bool = False, forward: bool = False, **settings: Any
) -> dict[str, Verdict]:
    config = PPOConfig.model_validate(settings)
    found = verdicts(rows, max_new_tokens=32, config=config, half=half, forward=forward)
    return {verdict.name: verdict for verdict in found}


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
    assert len(found) == 9
    assert all(verdict.level == "ok" and not verdict.remedy for verdict in found)
    assert verdicts([], max_new_tokens=32) == []


# (verdict, curves, settings) in each direction that the verdict looks.
ILL: list[tuple[str, dict[str, tuple[float, float]], dict[str, Any]]] = [
    ("first_ratio", {"policy__first_ratio_error": (0.0, 0.2)}, {}),
    ("first_ratio", {"policy__first_ratio_error": (0.0, 0.5)}, {"half": True}),
    ("negative_kl", {"kl__reference": (0.0, -2.0)}, {}),
    ("moved", {"kl__k3": (0.0, 1e-7)}, {}),
    ("updates", {"policy__updated_share": (0.9, 0.1)}, {}),
    ("updates", {"critic__updated_share": (0.9, 0.1)}, {}),
    ("entropy", {"policy__entropy": (2.0, 0.05)}, {}),
    ("entropy", {"policy__entropy": (2.0, 0.3)}, {}),
    ("entropy", {"policy__entropy": (1.0, 4.5)}, {}),
    ("entropy", {"policy__entropy": (0.0, 0.0)}, {}),
    ("length", {"answer__tokens": (10.0, 31.0), "answer__cut_share": (0.0, 0.9)}, {}),
    ("length", {"answer__tokens": (15.2, 1.0)}, {}),
    ("length", {"answer__tokens": (20.0, 8.0)}, {}),
    ("length", {"answer__tokens": (1.0, 1.0)}, {}),
    ("length", {"answer__cut_share": (0.9, 0.95)}, {}),
    ("critic", {"critic__explained_variance": (0.0, -0.2)}, {}),
    ("step_size", {"policy__clip_share": (0.1, 0.6)}, {}),
    ("forgets", {"look__text_loss": (1.0, 1.1)}, {}),
    ("forgets", {"look__text_loss": (1.0, 1.1)}, {"ptx": {"coefficient": 1.0}}),
    ("reward_varies", {"score__deviation": (0.0, 0.0), "score__mean": (0.0, 0.0)}, {}),
]


@pytest.mark.parametrize(("name", "ends", "settings"), ILL)
def test_each_illness_is_named_with_its_number_and_a_remedy(
    name: str, ends: dict[str, tuple[float, float]], settings: dict[str, Any]
) -> None:
    found = checked(curve(**ends), **settings)
    assert {n for n, v in found.items() if v.level != "ok"} == {name}
    assert any(word in found[name].remedy for word in ("ppo.", "algorithm", "compute."))
    assert not found[name].message.endswith((" ,", "; "))


def test_shrinking_and_growing_are_told_apart() -> None:
    small = checked(curve(answer__tokens=(15.2, 1.0)), reward={"length_penalty": 0.1})["length"]
    assert small.level == "bad"
    assert "shrank from 14.1 to 2.1 tokens" in small.message
    assert "lower ppo.reward.length_penalty" in small.remedy
    assert "length_penalty" not in checked(curve(answer__tokens=(15.2, 1.0)))["length"].remedy
    assert "grew from 11.6" in checked(curve(answer__tokens=(10.0, 30.0)))["length"].message
    # As long as before is as healthy from either side.
    assert levels(curve(answer__tokens=(20.0, 13.0)))["length"] == "ok"
    assert levels(curve(answer__tokens=(13.0, 19.0)))["length"] == "ok"


def test_rounding_of_16_bits_is_no_illness() -> None:
    rows = curve(policy__first_ratio_error=(0.08, 0.0825))
    assert levels(rows)["first_ratio"] == "bad"
    assert levels(rows, half=True)["first_ratio"] == "ok"


def test_no_verdict_advises_what_is_on_already() -> None:
    ill = curve(policy__first_ratio_error=(0.0, 0.9), kl__reference=(0.0, -2.0))
    for name in ("first_ratio", "negative_kl"):
        assert "ppo.old_logprobs: forward" in checked(ill)[name].remedy
        assert "ppo.old_logprobs" not in checked(ill, forward=True)[name].remedy
        assert "compute.dtype" in checked(ill, half=True)[name].remedy
        for on in (False, True):
            assert "compute.dtype" not in checked(ill, forward=on)[name].remedy
    rows = curve(score__mean=(0.0, 5.0))
    for number, score in ((0, 1.0), (9, 2.0), (19, 1.0)):
        rows[number] |= {"look/score": score, "look/error": 0.1}
    assert "ppo.stop.keep" not in checked(rows)["held_out"].remedy  # `best` is the default
    assert "ppo.stop.keep" in checked(rows, stop={"keep": "last"})["held_out"].remedy
    steps = curve(policy__clip_share=(0.1, 0.6))
    assert "ppo.epochs" not in checked(steps)["step_size"].remedy
    assert "ppo.epochs" in checked(steps, epochs=4)["step_size"].remedy


def test_what_cannot_fail_is_not_said() -> None:
    one_step = {"episodes": 64, "minibatch": 64}
    assert "step_size" not in levels(curve(), **one_step)
    assert "step_size" in levels(curve(), **one_step, epochs=2)
    assert "moved" not in levels(curve()[:1])
    warming = {"critic_warmup_iterations": 25}
    assert "moved" not in levels(curve(kl__k3=(0.0, 0.0)), **warming)


def test_a_reward_that_never_varies_is_not_blamed_on_the_critic() -> None:
    still = {"score__deviation": (0.0, 0.0), "critic__explained_variance": (0.0, 0.0)}
    found = levels(curve(**still))
    assert found["reward_varies"] == "bad"
    assert "critic" not in found
    assert levels(curve(score__deviation=(0.0, 0.5)))["reward_varies"] == "ok"


def test_a_part_of_ones_own_that_never_fires_is_named() -> None:
    parts = [{"name": name, "function": f"mine:{name}"} for name in ("brief", "rhymes")]
    rows = curve(score__brief=(0.0, 0.0), score__rhymes=(0.1, 0.5))
    found = checked(rows, parts=parts)["parts_vary"]
    assert (found.level, found.value) == ("warning", 1.0)
    assert "never varies: brief." in found.message
    lively = curve(score__brief=(-1.0, -2.0), score__rhymes=(0.1, 0.5))
    assert levels(lively, parts=parts)["parts_vary"] == "ok"
    assert "parts_vary" not in levels(rows)


def test_one_noisy_estimate_is_no_negative_kl() -> None:
    rows = curve()
    rows[3]["kl/reference"] = -0.9
    assert levels(rows)["negative_kl"] == "ok"


def test_a_held_out_score_that_falls_is_said_whatever_the_training_reward_does() -> None:
    rows = curve(score__mean=(2.0, 1.0))
    for number, score in ((0, 2.0), (9, 1.5), (19, 0.1)):
        rows[number] |= {"look/score": score, "look/error": 0.1}
    found = checked(rows)["held_out"]
    assert found.level == "warning"
    assert "training makes the policy worse" in found.message


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
    assert stopping.reason(1.0) is None  # 1.5 and 2.0 are better than 1.0 and 2.0 before them
    assert not stopping.observe(20, 1.6, 9.0)
    assert not stopping.observe(25, 1.9, 9.0)
    assert stopping.recent == [1.5, 2.0, 1.6, 1.9]
    assert "since iteration 5" in str(stopping.reason(1.0))  # no better than the two before
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
    assert sure.reason(0.0) is None  # 0.775 and 0.75 are better than 0.55 and 0.8
    # A later gain that is confirmed counts against the best, not against the last look.
    assert not sure.observe(25, 1.5, 2.9)
    assert "0.25 of the training reward's gain, since iteration 10" in str(sure.reason(0.0))
    assert sure.observe(30, 2.0, 3.1)
    # Where the training reward itself judges, it confirms itself.
    itself = EarlyStopping(StopConfig(confirm=0.5))
    assert [itself.observe(i, x, x) for i, x in enumerate((0.0, 1.0, 0.9))] == [True, True, False]


def test_it_stops_where_the_policy_forgets_and_keeps_what_did_not() -> None:
    looks = [(0, 0.0, 2.0), (5, 1.0, 1.98), (10, 2.0, 2.04), (15, 3.0, 2.0401)]
    for keep, kept in (("best", [True, True, True, False]), ("last", [True, True, True, False])):
        stopping = EarlyStopping(StopConfig(keep=keep, forgetting=0.02))
        for (iteration, score, loss), expected in zip(looks, kept, strict=True):
            assert stopping.reason(0.0) is None
            assert stopping.observe(iteration, score, 0.0, loss) is expected
        assert stopping.kept_iteration == 10
        assert "rose from 2.000 to 2.040" in str(stopping.reason(0.0))
        again = EarlyStopping(StopConfig(keep=keep, forgetting=0.02))
        again.restore(stopping.state())
        assert again.reason(0.0) == stopping.reason(0.0)
    off = EarlyStopping(StopConfig(forgetting=None))
    assert [off.observe(i, score, 0.0, loss) for i, score, loss in looks] == [True] * 4
    # With `last` and without texts no look keeps anything: the last iteration does.
    assert not EarlyStopping(StopConfig(keep="last")).observe(0, 1.0, 0.0)


def test_a_run_that_improves_steadily_is_seldom_stopped() -> None:
    """A gain of 0.5 in 30 looks at answers that scatter by 0.7 within a prompt: at most one of ten
    (docs/ppo.md). Before, 64 prompts and a patience of 3 stopped all."""
    stop, generator = StopConfig(), np.random.default_rng(0)
    noise = generator.normal(0, 0.7 / stop.heldout_prompts**0.5, (300, 31))
    truth = np.linspace(0, 0.5, 31)
    stops = 0
    for run in (truth + noise).tolist():
        stopping = EarlyStopping(stop)
        stops += any(
            stopping.observe(i, score, 0.0) is False and stopping.reason(0.0) is not None
            for i, score in enumerate(run)
        )
    assert stops / 300 <= 0.1


@pytest.mark.parametrize("looks", [10, 40])
def test_looks_at_a_flat_score_are_seldom_called_a_fall(looks: int) -> None:
    """Two standard errors below the best were a fall in 34 % of 10 looks and in 56 % of 40."""
    generator = np.random.default_rng(looks)
    alarms = 0
    for run in generator.normal(size=(200, looks)).tolist():
        rows = [{"look/score": score, "look/error": 1.0} for score in run]
        alarms += levels(rows)["held_out"] != "ok"
    assert alarms / 200 <= 0.06


def test_a_server_that_rounds_otherwise() -> None:
    assert "engine_mismatch" not in levels(curve())
    assert levels(curve(engine__mismatch=(1e-6, 1e-5)))["engine_mismatch"] == "ok"
    assert levels(curve(engine__mismatch=(1e-6, 1e-3)))["engine_mismatch"] == "warning"
    half = checked(curve(engine__mismatch=(1e-3, 2e-2)), half=True)
    assert half["engine_mismatch"].level == "ok"
