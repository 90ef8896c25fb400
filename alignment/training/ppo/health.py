"""Health verdicts on a PPO run, in plain language.

To add a verdict, write a function of the curves that returns `bounded(...)` (the figure, its bound,
a message for either side of it, a remedy). Enter it in `CHECKS` under the curve that it needs (a
key of the stage's series.jsonl), and add curves that fail it to tests/ppo/test_ppo_health.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Row = Mapping[str, float]


@dataclass(frozen=True)
class Verdict:
    """One verdict. `remedy` is empty if `level` is `ok`."""

    name: str
    level: Literal["ok", "warning", "bad"]
    value: float
    bound: float
    message: str
    remedy: str = ""


def bounded(
    name: str,
    value: float,
    bound: float,
    *,
    healthy: bool,
    ok: str,
    ill: str,
    remedy: str,
    level: Literal["warning", "bad"] = "bad",
) -> Verdict:
    """The verdict on `value`: message `ok` if it is healthy, else `ill`, with level and remedy."""
    if healthy:
        return Verdict(name, "ok", value, bound, ok)
    return Verdict(name, level, value, bound, ill, remedy)


@dataclass(frozen=True)
class Curves:
    """The curves that the checks examine."""

    rows: Sequence[Row]
    """Figures of every iteration."""
    max_new_tokens: int

    def of(self, name: str) -> list[float]:
        """The values of a figure, without iterations that did not measure it."""
        return [row[name] for row in self.rows if name in row]

    def ends(self, name: str) -> tuple[float, float]:
        """Means of a figure's first and last fifth (at least one, at most ten values)."""
        values = self.of(name)
        size = max(1, min(10, len(values) // 5))
        return sum(values[:size]) / size, sum(values[-size:]) / size


def _first_ratio(curves: Curves) -> Verdict:
    worst, bound = max(curves.of("policy/first_ratio_error")), 1e-2
    return bounded(
        "first_ratio",
        worst,
        bound,
        healthy=worst <= bound,
        ok=f"On first mini-batches the ratio is 1 within {worst:.2g}.",
        ill=f"On a first mini-batch the ratio is off 1 by {worst:.3g}: the policy that learns is "
        "not the one that spoke.",
        remedy="Set ppo.old_logprobs: forward; check that dropout is off and the temperature is "
        "the same.",
    )


def _negative_kl(curves: Curves) -> Verdict:
    lowest, bound = min(curves.of("kl/reference")), -0.5
    return bounded(
        "negative_kl",
        lowest,
        bound,
        healthy=lowest >= bound,
        ok=f"The KL to the reference is never clearly negative (lowest {lowest:.3g}).",
        ill=f"The estimated KL to the reference fell to {lowest:.3g} nats, which a true KL cannot: "
        "answers are not drawn from the policy's own distribution.",
        remedy="Sample without top-k or top-p, and at ppo.generation.temperature.",
    )


def _entropy(curves: Curves) -> Verdict:
    first, last = curves.ends("policy/entropy")
    share, bound = (last / first if first > 0 else 1.0), 0.3
    return bounded(
        "entropy",
        share,
        bound,
        healthy=share >= bound,
        level="bad" if share < 0.1 else "warning",
        ok=f"Entropy a token went from {first:.3g} to {last:.3g} nats.",
        ill=f"Entropy collapsed from {first:.3g} to {last:.3g} nats a token: the policy says "
        "nearly the same thing every time.",
        remedy="Raise ppo.kl.coefficient, lower ppo.learning_rate, or stop earlier "
        "(ppo.stop.kl_budget).",
    )


def _length(curves: Curves) -> Verdict:
    first, last = curves.ends("answer/tokens")
    cut_first, cut = curves.ends("answer/cut_share") if curves.of("answer/cut_share") else (0, 0)
    growth, bound = last / max(first, 1.0), 1.5
    return bounded(
        "length",
        growth,
        bound,
        healthy=growth <= bound and cut <= max(0.1, cut_first + 0.1),
        level="bad" if growth > 2 or cut > 0.5 else "warning",
        ok=f"Answers went from {first:.1f} to {last:.1f} tokens, {cut:.0%} cut.",
        ill=f"Answers grew from {first:.1f} to {last:.1f} tokens (limit {curves.max_new_tokens}), "
        f"{cut:.0%} are cut at the limit (at first {cut_first:.0%}).",
        remedy="Raise ppo.reward.missing_eos_penalty or set ppo.reward.length_penalty; look at "
        "whether the reward model pays for length.",
    )


def _critic(curves: Curves) -> Verdict:
    last, bound = curves.ends("critic/explained_variance")[1], 0.05
    return bounded(
        "critic",
        last,
        bound,
        healthy=last >= bound,
        level="warning",
        ok=f"The critic explains {last:.0%} of the returns' variance.",
        ill=f"The critic explains nothing: explained variance {last:.2f}.",
        remedy="Raise ppo.critic_learning_rate or ppo.critic_warmup_iterations, or use "
        "algorithm: rloo.",
    )


def _step_size(curves: Curves) -> Verdict:
    worst, bound = max(curves.of("policy/clip_share")), 0.3
    return bounded(
        "step_size",
        worst,
        bound,
        healthy=worst <= bound,
        level="warning",
        ok=f"At most {worst:.0%} of ratios were clipped.",
        ill=f"{worst:.0%} of ratios were clipped in one iteration: steps are too long.",
        remedy="Lower ppo.learning_rate or ppo.epochs.",
    )


def _held_out(curves: Curves) -> Verdict | None:
    scores = curves.of("look/score")
    if len(scores) < 2:
        return None
    fall = max(scores) - scores[-1]
    # A fall of less than twice the standard error of a look is noise.
    bound = 2 * max([0.0, *curves.of("look/error")][-1], 1e-9)
    first, last = curves.ends("score/mean") if curves.of("score/mean") else (0.0, 0.0)
    return bounded(
        "held_out",
        fall,
        bound,
        healthy=fall <= bound or last <= first,
        ok=f"On held-out prompts the score went from {scores[0]:.3g} to {scores[-1]:.3g}.",
        ill=f"The training reward still climbs while the held-out score is {fall:.3g} below its "
        f"best ({max(scores):.3g}): the policy exploits the reward model.",
        remedy="Keep the best weights (ppo.stop.keep: best), stop earlier, or raise "
        "ppo.kl.coefficient.",
    )


CHECKS: Mapping[str, Callable[[Curves], Verdict | None]] = {
    "policy/first_ratio_error": _first_ratio,
    "kl/reference": _negative_kl,
    "policy/entropy": _entropy,
    "answer/tokens": _length,
    "critic/explained_variance": _critic,
    "policy/clip_share": _step_size,
    "look/score": _held_out,
}
"""Curve that a check needs → the check."""


def verdicts(rows: Sequence[Row], *, max_new_tokens: int) -> list[Verdict]:
    """All verdicts that the curves allow; an empty history gives none."""
    curves = Curves(rows, max_new_tokens)
    checked = [check(curves) for needed, check in CHECKS.items() if curves.of(needed)]
    return [verdict for verdict in checked if verdict is not None]
