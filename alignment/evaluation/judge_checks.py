"""What the judges say at the promotion gate, and whether each may be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alignment.config.evaluate import PromoteConfig
from alignment.config.vocabulary import DOMAINS
from alignment.evaluation.checks import Check, Figures, finite, share
from alignment.evaluation.judging import CLIMBED, Row, find_rate
from alignment.evaluation.winrate import LEAST_PROMPTS
from alignment.utils.statistics import Interval

Accuracies = Mapping[str, Mapping[str, Figures]]
"""Judge → axis → `accuracy`, `low`, `high` and `count` on held-out comparisons."""

LEAST_HELDOUT = 20
"""A reward model is believed only if it was measured on so many held-out comparisons."""
LENGTHS_DIFFER = 1.1
"""Answers on average so many times as long as the other side's, or shorter by as much, are compared
at equal length: reward models and language models like long ones (Dubois et al. 2024)."""
TRUTH = "gold"
"""The judge that has no taste for length: where a longer answer is better, it is."""
MEASURED_JUDGES = (CLIMBED, "guard")
"""Judges that are right or wrong about held-out comparisons. Gold is the truth, and a language
model is compared with none here."""


@dataclass(frozen=True)
class Rate:
    """A win rate over the champion that counts: its interval, and in words with all that it rests
    on."""

    low: float
    high: float
    words: str


@dataclass(frozen=True)
class Hearing:
    """All that judges found on a version and the champion.

    Attributes:
        rates: rows of winrates.json.
        judges: those at hand, the primary one first.
        accuracies: of judges that are reward models.
    """

    version: str
    champion: str
    rates: list[Row]
    judges: Sequence[str]
    accuracies: Accuracies
    config: PromoteConfig

    def checks(self) -> list[Check]:
        """Win rates by the primary judge, whether it may be believed, and vetoes."""
        checks: list[Check] = []
        if self.judges:
            axes = self._win_checks(self.judges[0])
            checks += axes.values()
            if self.judges[0] in MEASURED_JUDGES:
                checks += self._belief_checks(axes)
            for other in self.judges[1:]:
                if other in self.config.judges:
                    checks += self._veto_checks(other)
        message = f"no judge compares {self.version} with {self.champion}"
        return checks or [Check("judge", None, None, False, message)]

    def independent(self) -> bool:
        """Whether a judge that training did not climb had a say on both axes: it decides, or has a
        veto, compared the two, and if it is a reward model, is shown to beat chance."""
        return any(
            judge != CLIMBED
            and (judge == self.judges[0] or judge in self.config.judges)
            and all(
                isinstance(self._rate(judge, axis), Rate) and self._belief(judge, axis)[0]
                for axis in DOMAINS
            )
            for judge in self.judges
        )

    def unheard(self) -> str:
        """Why the first judge that training did not climb had no say; empty where nothing is known
        of one."""
        for judge in self.judges:
            if judge != CLIMBED:
                for axis in DOMAINS:
                    shown, words, _ = self._belief(judge, axis)
                    if not shown:
                        return f"judge {judge} {words}"
        return ""

    def _rate(self, judge: str, axis: str) -> Rate | str:
        """The win rate over the champion, or why there is none that counts, empty where the two
        were not compared. Where lengths differ it is that at equal length, if they identify one."""
        row = find_rate(self.rates, self.version, self.champion, judge, axis)
        if row is None:
            return ""
        raw = _interval(row)
        if raw is None:
            return "the win rate or its interval is not a number"
        count = finite(row.get("n"))
        if count is None or count < LEAST_PROMPTS:
            return f"{count or 0:.0f} prompts compared, and at least {LEAST_PROMPTS} are needed"
        ratio = finite(row.get("length_ratio"))
        if judge == TRUTH or ratio is None or 1 / LENGTHS_DIFFER <= ratio <= LENGTHS_DIFFER:
            return Rate(raw.low, raw.high, _percent(raw))
        longer = f"with answers {ratio:.2f} times as long"
        equal = _interval(row, "lc_")
        if equal is None:
            words = f"{_percent(raw)} {longer}, at equal length not to be told"
            return Rate(raw.low, raw.high, words)
        words = f"{_percent(equal)} at equal length; {_percent(raw)} {longer}"
        return Rate(equal.low, equal.high, words)

    def _win_checks(self, judge: str) -> dict[str, Check]:
        """By axis."""
        rates = {axis: self._rate(judge, axis) for axis in DOMAINS}
        won = [axis for axis, rate in rates.items() if isinstance(rate, Rate) and rate.low > 0.5]
        margin, champion = self.config.margin, self.champion
        checks: dict[str, Check] = {}
        for axis, rate in rates.items():
            if isinstance(rate, str):
                why = rate or f"judge {judge} did not compare it with {champion} there"
                message = f"not measured on {axis}: {why}"
                checks[axis] = Check(f"win_{axis}", None, 0.5, False, message)
                continue
            # If the other axis is won, this one may fall short of ½ by the margin.
            excused = any(other != axis for other in won)
            bound = 0.5 - margin if excused else 0.5
            ok = rate.low >= bound if excused else rate.low > bound
            if axis in won:
                what = "beats"
            elif ok:
                what = f"is not worse by more than {100 * margin:g} points than"
            elif rate.high < 0.5:
                what = "loses to"
            else:
                what = "is not shown to beat"
            message = f"{what} {champion} on {axis} ({rate.words}, judge {judge})"
            checks[axis] = Check(f"win_{axis}", rate.low, bound, ok, message)
        return checks

    def _belief_checks(self, axes: Mapping[str, Check]) -> list[Check]:
        """Whether the primary judge, a reward model, may be believed on each axis."""
        judge, *others = self.judges
        checks = []
        for axis, win in axes.items():
            ok, words, value = self._belief(judge, axis)
            message = f"judge {judge} {words}"
            if not ok:
                agreeing = [
                    other
                    for other in others
                    if self._belief(other, axis)[0]
                    and isinstance(rate := self._rate(other, axis), Rate)
                    and win.bound is not None
                    and _reaches(rate, win.bound)
                ]
                ok = bool(agreeing)
                message += ", so it cannot decide by itself"
                message += f"; judge {agreeing[0]} finds the same" if agreeing else ""
            checks.append(Check(f"judge_{axis}", value, 0.5, ok, message))
        return checks

    def _veto_checks(self, judge: str) -> list[Check]:
        checks = []
        bound = 0.5 - self.config.judge_margin
        for axis in DOMAINS:
            rate = self._rate(judge, axis)
            if isinstance(rate, str):
                compared = f"did not compare {self.version} with {self.champion} on {axis}"
                why = f"judge {judge} on {axis}: {rate}" if rate else f"judge {judge} {compared}"
                message = f"not measured: {why}, so it could not object"
                checks.append(Check(f"veto_{judge}_{axis}", None, bound, True, message))
                continue
            ok = rate.high >= bound
            verb = "does not object" if ok else "objects"
            message = f"judge {judge} {verb} on {axis} ({rate.words})"
            shown, words, _ = self._belief(judge, axis)
            message += "" if shown else f"; it {words}"
            checks.append(Check(f"veto_{judge}_{axis}", rate.high, bound, ok, message))
        return checks

    def _belief(self, judge: str, axis: str) -> tuple[bool, str, float | None]:
        """(Whether the judge is shown to beat chance, in words, the lower bound of its accuracy);
        one that is no reward model needs no accuracy."""
        if judge not in MEASURED_JUDGES:
            return True, "", None
        cell = self.accuracies.get(judge, {}).get(axis, {})
        mean, low, high, count = (
            finite(cell.get(name)) for name in ("accuracy", "low", "high", "count")
        )
        if mean is None or low is None or high is None or count is None:
            return False, f"has no accuracy on held-out {axis} comparisons", None
        words = (
            f"ranks {100 * mean:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {count:.0f} held-out "
            f"{axis} comparisons right"
        )
        if count < LEAST_HELDOUT:
            return False, f"{words}, and at least {LEAST_HELDOUT} comparisons are needed", low
        if not 0.5 < low <= mean <= high <= 1:
            return False, f"{words}: it is not shown to beat chance", low
        return True, words, low


def _interval(row: Row, prefix: str = "") -> Interval | None:
    """The win rate of a row, or that at equal length (`lc_`); None where there is none."""
    low, mean, high = (share(row.get(f"{prefix}{name}")) for name in ("low", "win_rate", "high"))
    if low is None or mean is None or high is None or not low <= mean <= high:
        return None
    return Interval(mean, low, high)


def _reaches(rate: Rate, bound: float) -> bool:
    """Whether the interval is above one half, or reaches a bound below it."""
    return rate.low > bound if bound >= 0.5 else rate.low >= bound


def _percent(rate: Interval) -> str:
    return f"{100 * rate.mean:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"
