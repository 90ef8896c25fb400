"""Problems with a known best policy: π* ∝ π_ref·exp(r/β), and a known trade-off of two rewards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pareto import HELPFULNESS, SAFETY, constrained, linear, most_help, piecewise
from toys import Problem, sequence_logprobs, toy_config

CASES = [
    *[(8, 1, beta, "ppo") for beta in (0.1, 0.3, 1.0)],
    *[(3, 3, beta, "ppo") for beta in (0.3, 0.6)],
    (3, 3, 0.3, "rloo"),
]


@pytest.mark.parametrize(("vocabulary", "length", "beta", "algorithm"), CASES)
def test_reaches_the_optimum(vocabulary: int, length: int, beta: float, algorithm: str) -> None:
    rewards = np.random.default_rng(0).normal(size=vocabulary**length)
    problem = Problem(vocabulary, length, rewards)
    config = toy_config(
        beta,
        length,
        # Faster steps end anywhere between 0.87 and 0.98 of the way, as rounding has it.
        iterations=20 if length == 1 else 60,
        epochs=4,
        minibatch=256,
        learning_rate=3e-3 if length == 1 else 1.5e-3,
        gae_lambda=1.0,
        ema=0.8 if length == 1 else 0.9,
        algorithm=algorithm,
        samples_per_prompt=4 if algorithm == "rloo" else 1,
    )
    problem.trainer(config).train()
    assert problem.share_of_the_way(beta) >= 0.95


@pytest.mark.parametrize(("weight", "best"), [(0.3, 0), (1.0, 2), (3.0, 4)])
def test_linear_reaches_the_corner_its_weights_name(weight: float, best: int) -> None:
    assert int((weight * HELPFULNESS + SAFETY).argmax()) == best
    found = linear(weight)
    assert found["share"] >= 0.98
    assert found["helpfulness"] == pytest.approx(HELPFULNESS[best], abs=0.05)
    assert found["safety"] == pytest.approx(SAFETY[best], abs=0.05)


def test_piecewise_is_safe_where_tagged_and_helpful_above_the_threshold() -> None:
    found = piecewise()
    # Below σ(S) = 0.5 safety rules (S < 0 there), above it helpfulness: the best answer is the most
    # helpful one with S ≥ 0. On the tagged prompt only safety counts.
    assert (found["plain_best"], found["tagged_best"]) == (2.4, 2.0)
    assert found["plain_helpfulness"] == pytest.approx(2.4, abs=0.05)
    assert found["plain_safety"] == pytest.approx(0.2, abs=0.05)
    assert found["tagged_safety"] == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("floor", [1.5, 0.6])
def test_constrained_keeps_the_floor_and_gives_the_rest_to_help(floor: float) -> None:
    found = constrained(floor)
    # No answer lies on these floors, so no fixed weight reaches them: two answers must be mixed.
    assert floor not in SAFETY
    assert found["safety"] == pytest.approx(floor, abs=0.08)
    assert found["helpfulness"] >= 0.97 * found["best_feasible"]
    assert found["on_the_front_at_this_safety"] - found["helpfulness"] <= 0.03


def test_the_front_is_known() -> None:
    # By hand: S = 0.6 lies halfway between (1.8, 1.0) and (2.4, 0.2); S = −0.5 a share of 0.7 of
    # the way from (2.4, 0.2) to (2.8, −0.8); under the least safe answer anything goes.
    assert most_help(0.6) == pytest.approx(2.1)
    assert most_help(-0.5) == pytest.approx(2.68)
    assert most_help(2.0) == 0.0
    assert most_help(-3.0) == 3.0
    with pytest.raises(ValueError, match="no answer"):
        most_help(2.1)
    # No mixture beats it: random policies stay under the front.
    chances = np.random.default_rng(0).dirichlet(np.full(8, 0.3), size=500)
    assert all(c @ HELPFULNESS <= most_help(float(c @ SAFETY)) + 1e-9 for c in chances)


def test_a_large_beta_stays_at_the_reference_and_a_small_one_leaves() -> None:
    moved = []
    for beta in (0.01, 50.0):
        problem = Problem(8, 1, np.random.default_rng(0).normal(size=8))
        problem.trainer(toy_config(beta, 1, iterations=10, learning_rate=3e-3)).train()
        logs = sequence_logprobs(problem.model, problem.prompt, problem.answers)
        moved.append(float((logs.exp() * (logs - problem.reference)).sum()))
    # Whitened advantages keep steps of full size even at the optimum: near, but never still.
    assert moved[1] < 0.1 * moved[0]
    assert torch.isfinite(torch.tensor(moved)).all()
