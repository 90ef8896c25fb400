"""What a version may cost at the promotion gate: refusals, length, KL and degenerate answers."""

from __future__ import annotations

from alignment.config.evaluate import PromoteConfig
from alignment.evaluation.checks import Check, Figures, finite, share
from alignment.evaluation.degenerate import DEGENERATE

RELATIVE = ("no_eos", "other_language")
"""A short limit cuts nearly everybody's answers, and some prompts ask for a translation: only a
rise of these says something."""
CHOICE = 8.0
"""Tokens. Shorter answers choose among a few ("B", "Yes"): that they are alike is no fault."""
CLEAN = "degenerate"
"""The check that says that there are no degenerate answers: in every decision to promote."""
_SLACK = 1e-9  # a rise of exactly the bound must not fail by rounding


def bound_checks(new: Figures, old: Figures, champion: str, config: PromoteConfig) -> list[Check]:
    """Compare the figures of a version with the champion's."""
    checks = [
        _rise(
            "false_refusal_rise",
            "false refusals",
            new.get("false_refusal"),
            old.get("false_refusal"),
            config.max_false_refusal_rise,
        ),
        _length_check(new.get("length"), old.get("length"), champion, config),
        *_degenerate_checks(new, old, config),
    ]
    if config.max_kl_sft is not None:
        checks.append(_kl_check(new.get("kl_sft"), config.max_kl_sft))
    return checks


def _kl_check(kl: float | None, cap: float) -> Check:
    kl = finite(kl)
    if kl is None or kl < -0.01:  # no KL is negative, but for rounding
        return Check("kl_sft", None, cap, False, _missing("KL from SFT"))
    message = f"KL from SFT {kl:.1f} nats per answer (at most {cap:g})"
    return Check("kl_sft", kl, cap, kl <= cap, message)


def _degenerate_checks(new: Figures, old: Figures, config: PromoteConfig) -> list[Check]:
    """The shares that are too high or unknown, or one check that says that there are none."""
    bound, wrong = config.max_degenerate_rise, []
    relative = (*RELATIVE, "alike") if (new.get("length") or 0.0) < CHOICE else RELATIVE
    for name, what in DEGENERATE.items():
        if name == "refusal_helpful" and name not in new and name not in old:
            continue  # all harmless prompts are borderline: false refusals tell all
        check = _rise(name, what, new.get(name), old.get(name), bound)
        after = new.get(name) or 0.0
        if check.ok and name not in relative and after > 0.5:
            message = f"{what} are {100 * after:.1f} % of all (at most half)"
            check = Check(name, after, 0.5, False, message)
        if not check.ok:
            wrong.append(check)
    message = f"no kind of degenerate answers rose by more than {100 * bound:.1f} points"
    return wrong or [Check(CLEAN, 0.0, bound, True, message)]


def _rise(name: str, what: str, new: float | None, old: float | None, bound: float) -> Check:
    """Whether a share has risen by at most `bound`."""
    after, before = share(new), share(old)
    if after is None or before is None:
        return Check(name, None, bound, False, _missing(what))
    message = (
        f"{what} {100 * before:.1f} → {100 * after:.1f} % (may rise by {100 * bound:.1f} points)"
    )
    return Check(name, after - before, bound, after - before <= bound + _SLACK, message)


def _length_check(
    new: float | None, old: float | None, champion: str, config: PromoteConfig
) -> Check:
    length, before = finite(new), finite(old)
    low, high = config.min_length_ratio, config.max_length_ratio
    ratio = finite(length / before) if length is not None and before else None
    if ratio is None or ratio < 0:
        return Check("length_ratio", None, high, False, _missing("length of the answers"))
    message = (
        f"answers {ratio:.2f} times as long as {champion}'s (at least {low:g}, at most {high:g})"
    )
    bound = low if ratio < low else high
    return Check("length_ratio", ratio, bound, low <= ratio <= high, message)


def _missing(what: str) -> str:
    return f"not measured: {what}; evaluate again (align resume VERSION --from evaluate)"
