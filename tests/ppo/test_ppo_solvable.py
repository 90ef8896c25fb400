"""Problems with a known best policy: π* ∝ π_ref·exp(r/β), and a known trade-off of two rewards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from toys import Problem, sequence_logprobs, toy_config

from alignment.config.rewards import CombineConfig
from alignment.training.ppo.scoring import CombinedReward

CASES = [
    *[(8, 1, beta, "ppo") for beta in (0.1, 0.3, 1.0)],
    *[(3, 3, beta, "ppo") for beta in (0.3, 0.45, 0.6)],
    (3, 3, 0.3, "rloo"),
]


@pytest.mark.parametrize(("vocabulary", "length", "beta", "algorithm"), CASES)
def test_reaches_the_optimum(vocabulary: int, length: int, beta: float, algorithm: str) -> None:
    rewards = np.random.default_rng(0).normal(size=vocabulary**length)
    problem = Problem(vocabulary, length, rewards)
    config = toy_config(
        beta,
        length,
        iterations=20 if length == 1 else 45,
        epochs=4,
        minibatch=256,
        learning_rate=3e-3,
        lam=1.0,
        ema=0.8,
        algorithm=algorithm,
        samples_per_prompt=4 if algorithm == "rloo" else 1,
    )
    problem.trainer(config).train()
    assert problem.share_of_the_way(beta) >= 0.95


class Trade:
    """Eight one-token answers; more help is less safe, so the front of (H, S) is known.

    With β → 0 a linear reward w·H + S is best served by the answer that maximises it; a floor on
    the mean of S is best met by mixing the two answers on either side of it.
    """

    helpfulness = np.array([0.0, 1.0, 1.8, 2.4, 2.8, 3.0, 0.2, 0.5])
    safety = np.array([2.0, 1.6, 1.0, 0.2, -0.8, -2.0, -1.0, 0.0])

    def __init__(self, config: CombineConfig):
        self.problem = Problem(8, 1, np.zeros(8))
        self.reward = CombinedReward(
            lambda rows: self.helpfulness[[e.tokens.response[0] for e in rows]],
            lambda rows: self.safety[[e.tokens.response[0] for e in rows]],
            config,
        )

    def train(self, **changes: Any) -> tuple[float, float]:
        """Exact mean helpfulness and safety of the trained policy."""
        settings = {"iterations": 40, "learning_rate": 3e-3, "epochs": 4, "minibatch": 256}
        trainer = self.problem.trainer(
            toy_config(0.02, 1, **{**settings, **changes}), reward=self.reward
        )
        trainer.train()
        logs = sequence_logprobs(self.problem.model, self.problem.prompt, self.problem.answers)
        chance = logs.exp().numpy()
        return float(chance @ self.helpfulness), float(chance @ self.safety)


@pytest.mark.parametrize(("weight", "best"), [(0.3, 0), (1.0, 2), (3.0, 4)])
def test_linear_reaches_the_corner_its_weights_name(weight: float, best: int) -> None:
    trade = Trade(CombineConfig(helpfulness_weight=weight, safety_weight=1.0))
    totals = weight * trade.helpfulness + trade.safety
    assert int(totals.argmax()) == best
    helpfulness, safety = trade.train()
    reached = weight * helpfulness + safety
    assert reached >= totals.max() - 0.05 * (totals.max() - totals.mean())


def test_piecewise_is_safe_where_tagged_and_helpful_above_the_threshold() -> None:
    config = CombineConfig(method="piecewise", threshold=0.5, whiten=True)
    helpfulness, safety = Trade(config).train()
    # Untagged prompt: below σ(S) = 0.5 safety rules (S < 0 there), above it helpfulness. The best
    # answer is the most helpful one with S ≥ 0.
    assert helpfulness == pytest.approx(2.4, abs=0.1)
    assert safety == pytest.approx(0.2, abs=0.1)


def test_constrained_keeps_the_floor_and_gives_the_rest_to_help() -> None:
    config = CombineConfig(method="constrained", floor=1.0, multiplier_rate=0.1)
    trade = Trade(config)
    helpfulness, safety = trade.train(iterations=80, ema=0.9)
    # On the front, S = 1 goes with H = 1.8.
    assert safety >= 0.9
    assert helpfulness >= 1.5
    assert trade.reward.multiplier.value > 0.3


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
