"""Plain-language verdicts: is this run learning, or only moving?

Each looks at the curves (one dict of figures an iteration) and says what it saw, with the number,
the bound it was held against, and what to try.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Row = Mapping[str, float]


@dataclass(frozen=True)
class Verdict:
    """One finding. `level` is `ok`, `warning` or `bad`; `remedy` is empty where all is well."""

    name: str
    level: Literal["ok", "warning", "bad"]
    value: float
    bound: float
    message: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def verdicts(rows: Sequence[Row], *, max_new_tokens: int) -> list[Verdict]:
    """All verdicts that the curves allow; an empty history gives none."""
    if not rows:
        return []
    found = [
        _first_ratio(rows),
        _negative_kl(rows),
        _entropy(rows),
        _length(rows, max_new_tokens),
        _critic(rows),
        _steps(rows),
        _guard(rows),
    ]
    return [verdict for verdict in found if verdict is not None]


def _series(rows: Sequence[Row], name: str) -> list[float]:
    return [row[name] for row in rows if name in row]


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Means of the first and of the last fifth (at least one, at most ten values)."""
    size = max(1, min(10, len(values) // 5))
    return sum(values[:size]) / size, sum(values[-size:]) / size


def _first_ratio(rows: Sequence[Row]) -> Verdict | None:
    errors = _series(rows, "policy/first_ratio_error")
    if not errors:
        return None
    worst, bound = max(errors), 1e-2
    name = "first_ratio"
    if worst <= bound:
        message = f"On first mini-batches the ratio is 1 within {worst:.2g}."
        return Verdict(name, "ok", worst, bound, message)
    return Verdict(
        name,
        "bad",
        worst,
        bound,
        f"On a first mini-batch the ratio is off 1 by {worst:.3g}: the policy that learns is not "
        "the one that spoke.",
        "Set ppo.old_logprobs: forward; check that dropout is off and the temperature is the same.",
    )


def _negative_kl(rows: Sequence[Row]) -> Verdict | None:
    values = _series(rows, "kl/reference")
    if not values:
        return None
    lowest, bound = min(values), -0.5
    name = "negative_kl"
    if lowest >= bound:
        message = f"The KL to the reference is never clearly negative (lowest {lowest:.3g})."
        return Verdict(name, "ok", lowest, bound, message)
    return Verdict(
        name,
        "bad",
        lowest,
        bound,
        f"The estimated KL to the reference fell to {lowest:.3g} nats, which a true KL cannot: "
        "answers are not drawn from the policy's own distribution.",
        "Sample without top-k, top-p or a minimum length, and at ppo.temperature.",
    )


def _entropy(rows: Sequence[Row]) -> Verdict | None:
    values = _series(rows, "policy/entropy")
    if not values:
        return None
    first, last = _ends(values)
    share, bound = (last / first if first > 0 else 1.0), 0.3
    name = "entropy"
    if share >= bound:
        message = f"Entropy a token went from {first:.3g} to {last:.3g} nats."
        return Verdict(name, "ok", share, bound, message)
    return Verdict(
        name,
        "bad" if share < 0.1 else "warning",
        share,
        bound,
        f"Entropy collapsed from {first:.3g} to {last:.3g} nats a token: the policy says nearly "
        "the same thing every time.",
        "Raise ppo.kl.coefficient, lower ppo.learning_rate, or stop earlier (ppo.stop.kl_budget).",
    )


def _length(rows: Sequence[Row], max_new_tokens: int) -> Verdict | None:
    values = _series(rows, "answer/tokens")
    if not values:
        return None
    first, last = _ends(values)
    cut = _ends(_series(rows, "answer/cut_share") or [0.0])
    growth, bound = last / max(first, 1.0), 1.5
    name = "length"
    if growth <= bound and cut[1] <= max(0.1, cut[0] + 0.1):
        message = f"Answers went from {first:.1f} to {last:.1f} tokens, {cut[1]:.0%} cut."
        return Verdict(name, "ok", growth, bound, message)
    return Verdict(
        name,
        "bad" if growth > 2 or cut[1] > 0.5 else "warning",
        growth,
        bound,
        f"Answers grew from {first:.1f} to {last:.1f} tokens (limit {max_new_tokens}), "
        f"{cut[1]:.0%} are cut at the limit (at first {cut[0]:.0%}).",
        "Raise ppo.reward.missing_eos_penalty or set ppo.reward.length_penalty; look at whether "
        "the reward model pays for length.",
    )


def _critic(rows: Sequence[Row]) -> Verdict | None:
    values = _series(rows, "critic/explained_variance")
    if not values:
        return None
    _, last = _ends(values)
    bound = 0.05
    name = "critic"
    if last >= bound:
        message = f"The critic explains {last:.0%} of the returns' variance."
        return Verdict(name, "ok", last, bound, message)
    return Verdict(
        name,
        "warning",
        last,
        bound,
        f"The critic explains nothing: explained variance {last:.2f}.",
        "Raise ppo.critic_learning_rate or ppo.critic_warmup_iterations, or use algorithm: rloo.",
    )


def _steps(rows: Sequence[Row]) -> Verdict | None:
    values = _series(rows, "policy/clip_share")
    if not values:
        return None
    worst = max(values)
    bound = 0.3
    name = "step_size"
    if worst <= bound:
        return Verdict(name, "ok", worst, bound, f"At most {worst:.0%} of ratios were clipped.")
    return Verdict(
        name,
        "warning",
        worst,
        bound,
        f"{worst:.0%} of ratios were clipped in one iteration: steps are too long.",
        "Lower ppo.learning_rate or ppo.epochs.",
    )


def _guard(rows: Sequence[Row]) -> Verdict | None:
    looks = [row for row in rows if "guard/score" in row]
    if len(looks) < 2:
        return None
    scores = [row["guard/score"] for row in looks]
    best = max(scores)
    fall = best - scores[-1]
    # Twice the standard error of a look: less is noise.
    bound = 2 * max(looks[-1].get("guard/error", 0.0), 1e-9)
    train = _series(rows, "score/mean")
    climbing = len(train) >= 2 and _ends(train)[1] > _ends(train)[0]
    name = "guard"
    if fall <= bound or not climbing:
        message = f"On held-out prompts the score went from {scores[0]:.3g} to {scores[-1]:.3g}."
        return Verdict(name, "ok", fall, bound, message)
    return Verdict(
        name,
        "bad",
        fall,
        bound,
        f"The training reward still climbs while the held-out score is {fall:.3g} below its best "
        f"({best:.3g}): the policy exploits the reward model.",
        "Keep the best weights (ppo.stop.keep: best), stop earlier, or raise ppo.kl.coefficient.",
    )
