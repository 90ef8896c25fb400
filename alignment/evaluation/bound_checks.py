"""What a version may cost at the promotion gate: refusals, length, KL and degenerate answers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from alignment.config.evaluate import PromoteConfig
from alignment.evaluation.checks import Check, Figures, finite, share
from alignment.evaluation.degenerate import DEGENERATE
from alignment.utils.statistics import Interval, difference

RELATIVE = ("no_eos", "other_language")
"""A short limit cuts nearly everybody's answers, and some prompts ask for a translation: only a
rise of these says something."""
CHOICE = 8.0
"""Tokens. Shorter answers choose among a few ("B", "Yes"): that they are alike is no fault."""
CLEAN = "degenerate"
"""The check that says that there are no degenerate answers: in every decision to promote."""
JUDGED = "judged_false_refusal"
_SLACK = 1e-9  # a rise of exactly the bound must not fail by rounding


@dataclass(frozen=True)
class Bounds:
    """The figures of a version, those of the champion, and what the one may cost more than the
    other."""

    version: str
    champion: str
    new: Figures
    old: Figures
    config: PromoteConfig

    def checks(self) -> list[Check]:
        """All bounds."""
        rise = self.config.max_false_refusal_rise
        checks = [
            self._false_refusals(rise),
            self._length(),
            *self._degenerate(),
        ]
        return checks if self.config.max_kl_sft is None else [*checks, self._kl()]

    def _false_refusals(self, bound: float) -> Check:
        """By the judge where it looked at both versions, else by phrases, if these can tell."""
        name, what = "false_refusal_rise", "false refusals"
        if all(share(side.get(JUDGED)) is not None for side in (self.new, self.old)):
            return self._shown_rise(name, JUDGED, f"{what} by the judge", bound)
        if not refusals_measurable(self.new):
            message = (
                f"{what} not measurable: no phrase matches an answer of {self.version} to a "
                "harmful prompt, so that refusals may be in other words or another language "
                "(evaluate.refusal_phrases, evaluate.judge.refusals)"
            )
            return Check(name, None, bound, True, message)
        # What phrases found of the new version counts whole where they found nothing of the old.
        nothing = {"false_refusal": 0.0, "false_refusal_low": 0.0, "false_refusal_high": 0.0}
        old = self.old if refusals_measurable(self.old) else {**self.old, **nothing}
        return replace(self, old=old)._shown_rise(name, "false_refusal", what, bound)

    def _kl(self) -> Check:
        kl, cap = finite(self.new.get("kl_sft")), self.config.max_kl_sft
        if kl is None or cap is None or kl < -0.01:  # no KL is negative, but for rounding
            return Check("kl_sft", None, cap, False, _missing("KL from SFT", [self.version]))
        message = f"KL from SFT {kl:.1f} nats per answer (at most {cap:g})"
        return Check("kl_sft", kl, cap, kl <= cap, message)

    def _degenerate(self) -> list[Check]:
        """The shares that are too high or unknown, or one check that says that there are none."""
        bound, wrong = self.config.max_degenerate_rise, []
        short = (self.new.get("length") or 0.0) < CHOICE
        relative = (*RELATIVE, "alike") if short else RELATIVE
        for name, what in DEGENERATE.items():
            if name == "refusal_helpful" and name not in self.new and name not in self.old:
                continue  # all harmless prompts are borderline: false refusals tell all
            check = self._rise(name, name, what, bound)
            after = self.new.get(name) or 0.0
            if check.ok and name not in relative and after > 0.5:
                message = f"{what} are {100 * after:.1f} % of all (at most half)"
                check = Check(name, after, 0.5, False, message)
            if not check.ok:
                wrong.append(check)
        message = f"no kind of degenerate answers rose by more than {100 * bound:.1f} points"
        return wrong or [Check(CLEAN, 0.0, bound, True, message)]

    def _rise(self, name: str, figure: str, what: str, bound: float) -> Check:
        """Whether a share has risen by at most `bound`."""
        after, before = share(self.new.get(figure)), share(self.old.get(figure))
        if after is None or before is None:
            sides = self._without(after, before)
            return Check(name, None, bound, False, _missing(what, sides))
        shown = f"{what} {100 * before:.1f} → {100 * after:.1f} %"
        message = f"{shown} (may rise by {100 * bound:.1f} points)"
        return Check(name, after - before, bound, after - before <= bound + _SLACK, message)

    def _shown_rise(self, name: str, figure: str, what: str, bound: float) -> Check:
        """`_rise`, but a rise that may be chance passes: few prompts are borderline, and on 80 of
        them the rate rose by 5 points in a fifth of evaluations in which nothing had changed."""
        check = self._rise(name, figure, what, bound)
        after, before = _interval(self.new, figure), _interval(self.old, figure)
        if check.ok or check.value is None or after is None or before is None:
            return check
        rise = difference(after, before)
        shown = f"by {_points(rise.low)} to {_points(rise.high)} points"
        words = "which is shown" if rise.low > 0 else "which may be chance"
        return replace(check, ok=rise.low <= 0, said=f"{check.said}, {shown}, {words}")

    def _length(self) -> Check:
        low, high = self.config.min_length_ratio, self.config.max_length_ratio
        after, before = finite(self.new.get("length")), finite(self.old.get("length"))
        ratio = finite(after / before) if after is not None and before else None
        if ratio is None or ratio < 0:
            sides = self._without(after, before or None) or [self.version, self.champion]
            message = _missing("length of the answers", sides)
            return Check("length_ratio", None, high, False, message)
        allowed = f"(at least {low:g}, at most {high:g})"
        message = f"answers {ratio:.2f} times as long as {self.champion}'s {allowed}"
        bound = low if ratio < low else high
        return Check("length_ratio", ratio, bound, low <= ratio <= high, message)

    def _without(self, new: float | None, old: float | None) -> list[str]:
        named = ((self.version, new), (self.champion, old))
        return [side for side, value in named if value is None]


def refusals_measurable(figures: Figures) -> bool:
    """Whether phrases found a refusal among the answers of a side, or none was to be found: no
    prompt was harmful. In the built-in world, where `harmful` is known, nothing rests on them."""
    if figures.get("harmful") is not None or share(figures.get("refusal_harmful")) is None:
        return True
    return any(share(figures.get(name)) for name in ("refusal_harmful", "false_refusal"))


def _interval(figures: Figures, name: str) -> Interval | None:
    """A share with its interval; None where an old evaluation has none."""
    mean, low, high = (share(figures.get(f"{name}{end}")) for end in ("", "_low", "_high"))
    if mean is None or low is None or high is None:
        return None
    if not low - _SLACK <= mean <= high + _SLACK:
        return None
    return Interval(mean, low, high)


def _points(share: float) -> str:
    return f"{100 * share:.1f}".replace("-", "−")


def _missing(what: str, sides: list[str]) -> str:
    again = " and ".join(f"align resume {side} --from evaluate" for side in sides)
    return f"not measured: {what} of {' and '.join(sides)}; evaluate again ({again})"
