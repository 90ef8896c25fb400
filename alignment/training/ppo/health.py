"""Health verdicts on a PPO run, in plain language.

To add a verdict, write a function of the curves that returns `bounded(...)` (the figure, its bound,
a message for either side of it, a remedy that is not in force already). Enter it in `CHECKS` under
the curve that it needs (a key of the stage's series.jsonl), and add curves that fail it to
tests/ppo/test_ppo_health.py. A check that cannot fail under the settings returns None: a verdict of
`ok` would claim that something was looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from alignment.config.ppo import PPOConfig
from alignment.inference.canary import TOLERANCE
from alignment.models.update_share import FEW

Row = Mapping[str, float]

HELD_OUT_ALARMS = 0.05
"""Share of runs whose held-out score does not change that may be said to fall."""


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
    config: PPOConfig
    """The settings of the run: no verdict advises what is on already."""
    half: bool
    """Whether the policy computes in a format of 16 bits."""
    forward: bool
    """Whether the old log-probabilities are those of the training forward, asked for or not."""

    def of(self, name: str) -> list[float]:
        """The values of a figure, without iterations that did not measure it."""
        return [row[name] for row in self.rows if name in row]

    def ends(self, name: str) -> tuple[float, float]:
        """Means of a figure's first and last fifth (at least one, at most ten values)."""
        values = self.of(name)
        size = max(1, min(10, len(values) // 5))
        return sum(values[:size]) / size, sum(values[-size:]) / size

    def smooth(self, name: str, width: int = 5) -> list[float]:
        """Means of a figure over so many iterations in a row (all, if there are fewer)."""
        values = self.of(name)
        width = min(width, len(values))
        return [sum(values[i : i + width]) / width for i in range(len(values) - width + 1) if width]

    @property
    def steps(self) -> int:
        """Gradient steps of the policy in an iteration."""
        config = self.config
        return config.epochs * -(-config.episodes // config.minibatch)


def _one_policy(curves: Curves) -> str:
    """What makes the policy that speaks the one that learns."""
    cures = ["Check that dropout is off (the model's config.json)"]
    cures += [] if curves.forward else ["set ppo.old_logprobs: forward"]
    cures += ["compute in float32 (compute.dtype)"] if curves.half else []
    return "; or ".join(cures) + "."


def _first_ratio(curves: Curves) -> Verdict:
    # In 16 bits two passes over differently batched answers differ by some hundredths of a nat.
    worst, bound = max(curves.of("policy/first_ratio_error")), 0.25 if curves.half else 1e-2
    return bounded(
        "first_ratio",
        worst,
        bound,
        healthy=worst <= bound,
        ok=f"On first mini-batches the ratio is 1 within {worst:.2g}.",
        ill=f"On a first mini-batch the ratio is off 1 by {worst:.3g}: the policy that learns is "
        "not the one that spoke.",
        remedy=_one_policy(curves),
    )


def _kl(curves: Curves) -> Verdict:
    # Estimates of single iterations scatter; a true KL is not negative on the average of some.
    lowest, bound = min(curves.smooth("kl/reference")), -0.5
    return bounded(
        "negative_kl",
        lowest,
        bound,
        healthy=lowest >= bound,
        ok=f"The KL to the reference is never clearly negative (lowest {lowest:.3g}).",
        ill=f"The estimated KL to the reference fell to {lowest:.3g} nats, which a true KL cannot: "
        "answers are not drawn from the policy's own distribution.",
        remedy=_one_policy(curves),
    )


def _moved(curves: Curves) -> Verdict | None:
    """Whether the policy went anywhere; the other end of the KL is `ppo.stop.kl_limit`'s."""
    if len(curves.of("kl/k3")) <= curves.config.critic_warmup_iterations + 1:
        return None  # measured before each update: nothing has been trained yet
    if curves.config.reference == "sft":
        return None  # far from it at the start already; `_updates` sees whether anything moves
    furthest, bound = max(curves.of("kl/k3")), 1e-5
    return bounded(
        "moved",
        furthest,
        bound,
        healthy=furthest > bound,
        ok=f"The policy left its reference (by {furthest:.2g} nats an answer).",
        ill=f"The policy did not move: its KL to the reference is at most {furthest:.1g} nats.",
        remedy="Raise ppo.learning_rate.",
    )


def _updates(curves: Curves) -> Verdict:
    """Whether the steps arrive in the weights; of the role that keeps less of them."""
    shares = {
        role: min(curves.smooth(name))
        for role in ("policy", "critic")
        if curves.of(name := f"{role}/updated_share")
    }
    role = min(shares, key=lambda role: shares[role])
    rate = "critic_learning_rate" if role == "critic" else "learning_rate"
    return bounded(
        "updates",
        shares[role],
        FEW,
        healthy=shares[role] >= FEW,
        ok=f"Steps change {shares[role]:.0%} of the parameters that they are to change.",
        ill=f"Updates of the {role} are lost: its steps change {shares[role]:.0%} of the "
        "parameters that they are to change; the rest is rounded away.",
        remedy=f"Raise ppo.{rate}.",
    )


def _entropy(curves: Curves) -> Verdict:
    first, last = curves.ends("policy/entropy")
    share = last / first if first > 0 else 1.0
    low, high, floor = 0.3, 3.0, 1e-2
    gone = last < floor
    rose = share > high and not gone
    return bounded(
        "entropy",
        share,
        high if rose else low,
        healthy=low <= share <= high and not gone,
        level="bad" if share < 0.1 or share > 2 * high or gone else "warning",
        ok=f"Entropy a token went from {first:.3g} to {last:.3g} nats.",
        ill=f"Entropy rose from {first:.3g} to {last:.3g} nats a token: the policy comes apart."
        if rose
        else f"Entropy collapsed from {first:.3g} to {last:.3g} nats a token: the policy says "
        "nearly the same thing every time.",
        remedy="Raise ppo.kl.coefficient, lower ppo.learning_rate"
        + (
            " or ppo.entropy_coefficient."
            if rose and curves.config.entropy_coefficient > 0
            else ", or stop earlier (a lower ppo.stop.kl_budget)."
        ),
    )


def _length(curves: Curves) -> Verdict:
    first, last = curves.ends("answer/tokens")
    config, limit = curves.config, curves.max_new_tokens
    cut_first, cut = curves.ends("answer/cut_share") if curves.of("answer/cut_share") else (0, 0)
    ratio, least, most = last / max(first, 1.0), 0.5, 1.5
    shrunk = ratio < least or last <= 1.0
    grown = ratio > most or cut > cut_first + 0.1
    always = not grown and cut > 0.5
    now = f"from {first:.1f} to {last:.1f} tokens"
    if shrunk:
        ill = f"Answers shrank {now}: the policy learns to say nothing."
        remedy = "Look at whether the reward pays for short answers (ppo.parts)" + (
            ", and lower ppo.reward.length_penalty." if config.reward.length_penalty > 0 else "."
        )
    elif always:
        ill = f"Answers went {now}, and {cut:.0%} are cut at the limit of {limit}."
        remedy = "Raise ppo.generation.max_new_tokens, or train on shorter answers first."
    else:
        ill = (
            f"Answers grew {now} (limit {limit}), {cut:.0%} are cut at the limit "
            f"(at first {cut_first:.0%})."
        )
        remedy = (
            "Raise ppo.reward.missing_eos_penalty or ppo.reward.length_penalty; look at whether "
            "the reward model pays for length."
        )
    return bounded(
        "length",
        ratio,
        least if shrunk else most,
        healthy=not (shrunk or grown or always),
        level="bad" if ratio > 2 or ratio < 0.25 or last <= 1.0 or cut > 0.5 else "warning",
        ok=f"Answers went {now}, {cut:.0%} cut.",
        ill=ill,
        remedy=remedy,
    )


def _constant(values: Sequence[float]) -> bool:
    return max(values) - min(values) <= 1e-6 * max(1.0, *map(abs, values))


def _reward_varies(curves: Curves) -> Verdict | None:
    spreads = [value for value in curves.of("score/deviation") if value == value]
    if not spreads:
        return None  # one episode an iteration has no deviation
    spread, bound = max(spreads), 1e-6
    level = curves.of("score/mean")
    return bounded(
        "reward_varies",
        spread,
        bound,
        healthy=spread > bound,
        ok=f"The reward tells answers apart (deviation up to {spread:.2g}).",
        ill="The reward never varies: every answer of an iteration gets the same"
        + (f" ({level[-1]:.3g})" if level else "")
        + ", so there is nothing to learn from.",
        remedy="Look at the reward models and the functions of ppo.parts: do they ever fire?",
    )


def _parts_vary(curves: Curves) -> Verdict | None:
    """A part of one's own whose mean is the same in every iteration hardly looks at the answers."""
    seen = {part.name: curves.of(f"score/{part.name}") for part in curves.config.parts}
    still = sorted(name for name, means in seen.items() if len(means) > 1 and _constant(means))
    if not any(len(means) > 1 for means in seen.values()):
        return None
    return bounded(
        "parts_vary",
        float(len(still)),
        0.0,
        healthy=not still,
        level="warning",
        ok="Every part of your own varies.",
        ill=f"A part of the reward never varies: {', '.join(still)}.",
        remedy="Look at that function in ppo.parts: does it ever fire?",
    )


def _critic(curves: Curves) -> Verdict | None:
    if (varies := _reward_varies(curves)) is not None and varies.level != "ok":
        return None  # there is nothing to explain
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


def _step_size(curves: Curves) -> Verdict | None:
    if curves.steps < 2:
        return None  # the only step starts from a ratio of 1, where nothing is clipped
    worst, bound = max(curves.of("policy/clip_share")), 0.3
    return bounded(
        "step_size",
        worst,
        bound,
        healthy=worst <= bound,
        level="warning",
        ok=f"At most {worst:.0%} of ratios were clipped.",
        ill=f"{worst:.0%} of ratios were clipped in one iteration: steps are too long.",
        remedy="Lower ppo.learning_rate" + (" or ppo.epochs." if curves.config.epochs > 1 else "."),
    )


def _held_out(curves: Curves) -> Verdict | None:
    scores = curves.of("look/score")
    if len(scores) < 2:
        return None
    fall = max(scores) - scores[-1]
    # The best of many looks owes a part to chance: each earlier one may lie above the last by the
    # quantile of its share of the alarms (Bonferroni).
    errors = NormalDist().inv_cdf(1 - HELD_OUT_ALARMS / (len(scores) - 1)) * 2**0.5
    bound = errors * max([0.0, *curves.of("look/error")][-1], 1e-9)
    first, last = curves.ends("score/mean") if curves.of("score/mean") else (0.0, 0.0)
    climbs = last > first
    what = (
        "The training reward still climbs while the held-out score is"
        if climbs
        else "The training reward does not climb, and the held-out score is"
    )
    why = "the policy exploits the reward model" if climbs else "training makes the policy worse"
    best = (
        "" if curves.config.stop.keep == "best" else "Keep the best weights (ppo.stop.keep: best). "
    )
    return bounded(
        "held_out",
        fall,
        bound,
        healthy=fall <= bound,
        level="bad" if climbs else "warning",
        ok=f"On held-out prompts the score went from {scores[0]:.3g} to {scores[-1]:.3g}.",
        ill=f"{what} {fall:.3g} below its best ({max(scores):.3g}): {why}.",
        remedy=f"{best}Stop earlier, or raise ppo.kl.coefficient."
        if climbs
        else f"{best}Lower ppo.learning_rate.",
    )


def _forgets(curves: Curves) -> Verdict | None:
    allowed = curves.config.stop.forgetting
    if allowed is None:
        return None
    losses = curves.of("look/text_loss")
    rise = losses[-1] / losses[0] - 1
    ways = ["raise ppo.kl.coefficient"]
    if curves.config.ptx.coefficient == 0:
        ways.append("learn from texts on the side (ppo.ptx.coefficient)")
    return bounded(
        "forgets",
        rise,
        allowed,
        healthy=rise <= allowed,
        level="warning",
        ok=f"The loss on held-out texts changed by {rise:+.1%}.",
        ill=f"The loss on held-out texts rose by {rise:.1%}, from {losses[0]:.3f} to "
        f"{losses[-1]:.3f} nats a token: the policy forgets.",
        remedy=f"To train for longer, {' or '.join(ways)}.",
    )


def _engine(curves: Curves) -> Verdict | None:
    worst = max(curves.of("engine/mismatch"))
    bound = TOLERANCE["bfloat16" if curves.half else "float32"]
    weighted = curves.config.rollout_weight_cap is not None
    return bounded(
        "engine_mismatch",
        worst,
        bound,
        healthy=worst <= bound,
        ok=f"The server's log-probabilities agree with the trainer's ({worst:.2g} a token).",
        ill=f"The server's log-probabilities differ from the trainer's by {worst:.2g} a token, "
        f"more than rounding explains ({bound:g})"
        + (
            "; importance weights correct for a part." if weighted else ", and nothing corrects it."
        ),
        remedy=("See whether the mismatch grows; " if weighted else "Set ppo.rollout_weight_cap; ")
        + "inference.engine: transformers draws in this process.",
        level="warning",
    )


CHECKS: Sequence[tuple[str, Callable[[Curves], Verdict | None]]] = (
    ("policy/first_ratio_error", _first_ratio),
    ("kl/reference", _kl),
    ("kl/k3", _moved),
    ("policy/updated_share", _updates),
    ("policy/entropy", _entropy),
    ("answer/tokens", _length),
    ("score/deviation", _reward_varies),
    ("score/mean", _parts_vary),
    ("critic/explained_variance", _critic),
    ("policy/clip_share", _step_size),
    ("look/score", _held_out),
    ("look/text_loss", _forgets),
    ("engine/mismatch", _engine),
)
"""The curve that a check needs, and the check."""


def verdicts(
    rows: Sequence[Row],
    *,
    max_new_tokens: int,
    config: PPOConfig | None = None,
    half: bool = False,
    forward: bool = False,
) -> list[Verdict]:
    """All verdicts that the curves allow; an empty history gives none.

    Args:
        rows: figures of every iteration.
        config: the settings of the run; by default all defaults.
        half, forward: see `Curves`.
    """
    curves = Curves(rows, max_new_tokens, config or PPOConfig(), half, forward)
    checked = [check(curves) for needed, check in CHECKS if curves.of(needed)]
    return [verdict for verdict in checked if verdict is not None]
