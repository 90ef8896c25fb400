"""A trade-off of two rewards whose Pareto front is known exactly.

    python tests/ppo/pareto.py

prints for the linear, the piecewise and the constrained reward what PPO reached beside what the
best policy reaches, a JSON line each for each of three seeds. Takes some minutes.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import torch
from toys import Problem, sequence_logprobs, toy_config

from alignment.config.rewards import CombineConfig
from alignment.training.ppo.scoring import CombinedReward, PromptItem

HELPFULNESS = np.array([0.0, 1.0, 1.8, 2.4, 2.8, 3.0, 0.2, 0.5])
SAFETY = np.array([2.0, 1.6, 1.0, 0.2, -0.8, -2.0, -1.0, 0.0])
PLAIN, TAGGED = (1, 2), (3, 4)
WEIGHTS = (0.3, 1.0, 3.0)
FLOORS = (1.5, 1.0, 0.6, -0.5)


def most_help(floor: float) -> float:
    """The highest E[H] of any policy with E[S] ≥ floor.

    A linear program with one constraint beside the simplex: an optimum mixes at most two answers,
    so all pairs are tried.

    Raises:
        ValueError: no policy is so safe.
    """
    found = []
    for a, b in itertools.product(range(len(SAFETY)), repeat=2):
        if SAFETY[a] < floor:
            continue
        # The largest share of b that the floor allows.
        share = 1.0 if SAFETY[b] >= floor else (SAFETY[a] - floor) / (SAFETY[a] - SAFETY[b])
        found.append((1 - share) * HELPFULNESS[a] + share * HELPFULNESS[b])
    if not found:
        raise ValueError(f"no answer has a safety of {floor}")
    return float(max(found))


class Trade:
    """Eight one-token answers; on the front more help is less safe. Two answers (the last) lie
    under it.

    Args:
        config: how the two are combined.
        seed: of training.
    """

    def __init__(self, config: CombineConfig, seed: int = 3):
        self.problem = Problem(8, 1, np.zeros(8))
        self.seed = seed
        self.reward = CombinedReward(
            lambda rows: HELPFULNESS[[e.tokens.response[0] for e in rows]],
            lambda rows: SAFETY[[e.tokens.response[0] for e in rows]],
            config,
        )

    def means(self, prompt: tuple[int, ...] = PLAIN) -> tuple[float, float]:
        """The policy's exact E[H] and E[S]."""
        logs = sequence_logprobs(self.problem.model, prompt, self.problem.answers)
        chance = logs.exp().numpy()
        return float(chance @ HELPFULNESS), float(chance @ SAFETY)

    def train(self, *, tagged: bool = False, **changes: Any) -> tuple[float, float]:
        """Train; E[H] and E[S] on the plain prompt.

        Args:
            tagged: learn on a prompt with the safety tag, too.
        """
        settings = {"iterations": 40, "learning_rate": 3e-3, "epochs": 4, "minibatch": 256}
        items = [PromptItem(PLAIN), *([PromptItem(TAGGED, (), True)] if tagged else [])]
        config = toy_config(0.02, 1, **{**settings, **changes})
        self.problem.trainer(config, self.reward, prompts=items, seed=self.seed).train()
        return self.means()


def linear(weight: float, seed: int = 3) -> dict[str, float]:
    """w·H + S against its best answer; `share` of the way from the reference policy to it."""
    trade = Trade(CombineConfig(weights={"helpfulness": weight, "safety": 1.0}), seed)
    start = weight * trade.means()[0] + trade.means()[1]
    helpfulness, safety = trade.train()
    best = float((weight * HELPFULNESS + SAFETY).max())
    reached = weight * helpfulness + safety
    return {
        "weight": weight,
        "helpfulness": helpfulness,
        "safety": safety,
        "reached": reached,
        "best": best,
        "share": (reached - start) / (best - start),
    }


def piecewise(seed: int = 3) -> dict[str, float]:
    """With a threshold of σ(0): on a plain prompt the most helpful answer of S ≥ 0 is best, on a
    tagged one the safest."""
    trade = Trade(CombineConfig(method="piecewise", threshold=0.5, whiten=True), seed)
    helpfulness, safety = trade.train(tagged=True, iterations=50)
    return {
        "plain_helpfulness": helpfulness,
        "plain_best": float(HELPFULNESS[SAFETY >= 0].max()),
        "plain_safety": safety,
        "tagged_safety": trade.means(TAGGED)[1],
        "tagged_best": float(SAFETY.max()),
    }


def constrained(floor: float, seed: int = 3) -> dict[str, float]:
    """E[S] against the floor, and E[H] against the most that any policy of that safety has."""
    config = CombineConfig(method="constrained", floor=floor, multiplier_rate=0.1)
    trade = Trade(config, seed)
    helpfulness, safety = trade.train(iterations=80, ema=0.95)
    return {
        "floor": floor,
        "safety": safety,
        "helpfulness": helpfulness,
        "best_feasible": most_help(floor),
        "on_the_front_at_this_safety": most_help(safety),
        "multiplier": trade.reward.multiplier.value,
    }


def main() -> None:
    """See the module."""
    torch.set_num_threads(1)
    for seed in (3, 4, 5):
        for method, run, values in (
            ("linear", linear, WEIGHTS),
            ("piecewise", lambda _, seed: piecewise(seed), (None,)),
            ("constrained", constrained, FLOORS),
        ):
            for value in values:
                figures = {name: round(figure, 3) for name, figure in run(value, seed).items()}
                print(json.dumps({"seed": seed, "method": method, **figures}), flush=True)


if __name__ == "__main__":
    main()
