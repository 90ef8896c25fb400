"""How often the gate promotes what it should not, and what it should, at several sizes.

    python -m tests.benchmarks.gate_power

Simulates evaluations with known truth and has `apply_gate` decide on each: independent prompts,
wins and losses without ties. Prints the tables of docs/statistics.md, in some minutes on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.config.evaluate import PromoteConfig
from alignment.config.vocabulary import DOMAINS
from alignment.evaluation.bound_checks import rise_name
from alignment.evaluation.degenerate import DEGENERATE
from alignment.evaluation.gate import apply_gate
from alignment.evaluation.power import promotion_chance
from alignment.evaluation.standings import bounded
from alignment.evaluation.winrate import win_rate
from alignment.utils.statistics import difference, paired_difference, wilson

DEFAULTS = PromoteConfig()
SIZES = (100, 200, 500, 1000)
RATES = (
    *((50, 50), (52, 52), (55, 55), (60, 60), (60, 50), (50, 60)),
    *((55, 50), (60, 45), (45, 60), (70, 40), (45, 45)),
)
REFUSALS = ((10, 10), (20, 20), (30, 30), (10, 15), (10, 20), (20, 30), (20, 40))
ALIKE = 0.5
"""Share of the variance of how a side takes a borderline prompt that all sides have in common."""
CREEP = (0.0875, 0.175, 0.2625, 0.35)
"""True shares of false refusals of SFT and of one version after the other."""
BORDERLINE = (80, 250, 1000)
VETOES = (35, 40, 45, 48, 50, 52, 55)
SURE = {"accuracy": 0.7, "low": 0.65, "high": 0.75, "count": 300.0}
CLEAN = {**dict.fromkeys(DEGENERATE, 0.02), "kl_sft": 1.0, "false_refusal": 0.05, "length": 9.0}
WON = {"n": 500, "win_rate": 0.65, "low": 0.6, "high": 0.7}

Row = dict[str, Any]
Flags = NDArray[np.bool_]


@cache
def row_of(wins: int, prompts: int) -> Row:
    """The row of winrates.json for so many wins; no order of theirs is unlike another."""
    won = np.random.default_rng(wins).permutation(np.arange(prompts) < wins)
    return win_rate(won, np.ones(prompts), np.ones(prompts)).row()


def decide(
    rates: dict[str, Sequence[Row]],
    figures: tuple[Row, Row, Row] = (CLEAN, CLEAN, CLEAN),
    config: PromoteConfig = DEFAULTS,
) -> bool:
    """Whether the gate promotes, by judge → rows of both axes, the primary judge first, and the
    figures of the version, the champion and SFT."""
    rows = [
        {"a": "new", "b": "old", "judge": judge, "axis": axis, **row}
        for judge, both in rates.items()
        for axis, row in zip(DOMAINS, both, strict=True)
    ]
    standings = dict(zip(("new", "old", "sft"), figures, strict=True))
    sure = {"guard": dict.fromkeys(DOMAINS, SURE)}
    return apply_gate("new", "old", rows, standings, list(rates), config, sure).promoted


class Evaluations:
    """Draws evaluations of known truth."""

    def __init__(self, runs: int, seed: int = 0):
        self.runs = runs
        self._generator = np.random.default_rng(seed)

    def wins(self, rate: float, prompts: int) -> list[Row]:
        """Rows of one axis, one a run."""
        drawn = self._generator.binomial(prompts, rate, self.runs)
        return [row_of(int(wins), prompts) for wins in drawn]

    def both(self, rates: tuple[float, float], prompts: int) -> list[tuple[Row, Row]]:
        """Rows of both axes."""
        return list(zip(*(self.wins(rate, prompts) for rate in rates), strict=True))

    def refusals(self, shares: Sequence[float], prompts: int) -> list[Flags]:
        """Which of so many borderline prompts sides with these true shares refuse, (sides, prompts)
        of each run. All sides answer the same prompts, of which some tempt them all."""
        most = np.array([[NormalDist().inv_cdf(share)] for share in shares])
        drawn = []
        for _ in range(self.runs):
            common = self._generator.normal(size=prompts)
            own = self._generator.normal(size=(len(shares), prompts))
            drawn.append(ALIKE**0.5 * common + (1 - ALIKE) ** 0.5 * own < most)
        return drawn

    def promoted(self, rates: tuple[float, float], prompts: int) -> float:
        """Share promoted by win rates alone."""
        return float(np.mean([decide({"gold": both}) for both in self.both(rates, prompts)]))

    def refused(self, shares: tuple[float, float], prompts: int) -> tuple[float, float]:
        """Share not promoted for false refusals alone, by the rule before and today; SFT and the
        champion truly refuse alike."""
        before, after = shares
        drawn = self.refusals((after, before, before), prompts)
        passed = [(unpaired(new, old), passes(new, old, sft)) for new, old, sft in drawn]
        then, now = np.mean(passed, axis=0)
        return 1 - float(then), 1 - float(now)

    def creep(self, prompts: int) -> list[tuple[float, float]]:
        """Of each version of a series that refuses more and more, and else is better, the share
        that is promoted over the champion of the day, by the rule before and today."""
        promoted = np.zeros((len(CREEP) - 1, 2))
        for sides in self.refusals(CREEP, prompts):
            sft = sides[0]
            for rule in range(2):
                old = sft
                for number, new in enumerate(sides[1:]):
                    if passes(new, old, sft) if rule else unpaired(new, old):
                        promoted[number, rule] += 1 / self.runs
                        old = new
        return [(float(then), float(now)) for then, now in promoted]

    def vetoed(self, rate: float, prompts: int, margin: float) -> float:
        """Share not promoted because a guard objects on one axis."""
        config = PromoteConfig(judge_margin=margin)
        rows = self.wins(rate, prompts)
        asked = [{"gold": (WON, WON), "guard": (row, WON)} for row in rows]
        return 1 - float(np.mean([decide(rates, config=config) for rates in asked]))

    def whole(self, rate: float, prompts: int, borderline: int) -> float:
        """Share promoted by the whole gate, where two axes are alike, the guard sees two thirds of
        the truth, and 10 % of borderline prompts are refused before and after."""
        seen = 0.5 + (rate - 0.5) * 2 / 3
        gold, guard = self.both((rate, rate), prompts), self.both((seen, seen), prompts)
        drawn = self.refusals((0.1, 0.1, 0.1), borderline)
        decided = zip(gold, guard, drawn, strict=True)
        return float(
            np.mean([decide({"gold": a, "guard": b}, figures(*sides)) for a, b, sides in decided])
        )


def figures(new: Flags, old: Flags, sft: Flags) -> tuple[Row, Row, Row]:
    """The figures of three sides that refuse these of the same borderline prompts, (n,) each."""
    rises = [
        bounded(rise_name(name), paired_difference(new.astype(float), other.astype(float)))
        for name, other in (("old", old), ("sft", sft))
    ]
    shares = (
        bounded("false_refusal", wilson(int(side.sum()), side.size)) for side in (new, old, sft)
    )
    one, two, three = ({**CLEAN, **share} for share in shares)
    return {**one, **rises[0], **rises[1]}, two, three


def passes(new: Flags, old: Flags, sft: Flags) -> bool:
    """Whether the gate promotes what refuses these of the borderline prompts and is else better."""
    return decide({"gold": (WON, WON)}, figures(new, old, sft))


def unpaired(new: Flags, old: Flags) -> bool:
    """Whether it passed before: above the champion's by 3 points at most, or by what may be chance
    for two independent rates."""
    after, before = (wilson(int(side.sum()), side.size) for side in (new, old))
    small = after.mean - before.mean <= DEFAULTS.max_false_refusal_rise + 1e-9
    return small or difference(after, before).low <= 0


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    for cells in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(cells)} |")
    print()


def percent(share: float) -> str:
    """With a decimal below 10 %."""
    return f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:.0f} %"


def main(runs: int = 4000) -> None:
    """See the module."""
    draw, margin = Evaluations(runs), DEFAULTS.margin
    print(f"Promoted by win rates alone, of {runs:,} evaluations (in brackets `align plan`'s)\n")
    rows = []
    for pair in RATES:
        rates = (pair[0] / 100, pair[1] / 100)
        cells = [
            f"{percent(draw.promoted(rates, n))} ({percent(promotion_chance(rates, n, margin))})"
            for n in SIZES
        ]
        rows.append([f"{pair[0]} : {pair[1]}", *cells])
    table(["true win rates, %", *(f"{n} prompts an axis" for n in SIZES)], rows)
    print("Not promoted for false refusals alone: by two independent rates (before) → today\n")
    rows = []
    for shares in REFUSALS:
        true = (shares[0] / 100, shares[1] / 100)
        cells = [" → ".join(map(percent, draw.refused(true, n))) for n in BORDERLINE]
        rows.append([f"{shares[0]} → {shares[1]}", *cells])
    table(["refused, %", *(f"{n:,} borderline prompts" for n in BORDERLINE)], rows)
    print("Promoted while false refusals creep up: before → today\n")
    found = zip(*(draw.creep(n) for n in BORDERLINE), strict=True)
    rows = [
        [
            f"{100 * CREEP[number]:.1f} → {100 * share:.1f}",
            *(" → ".join(map(percent, c)) for c in cells),
        ]
        for number, (share, cells) in enumerate(zip(CREEP[1:], found, strict=True))
    ]
    table(["refused, %", *(f"{n:,} borderline prompts" for n in BORDERLINE)], rows)
    print("A guard's veto on one axis: judge_margin 0.05 (before) → 0 (today)\n")
    rows = [
        [
            f"{rate}",
            *(
                " → ".join(percent(draw.vetoed(rate / 100, n, m)) for m in (0.05, 0.0))
                for n in SIZES
            ),
        ]
        for rate in VETOES
    ]
    table(["win rate by the guard, %", *(f"{n} prompts" for n in SIZES)], rows)
    print("The whole gate: promoted\n")
    rows = [
        [
            "a copy of the champion" if rate == 50 else f"{rate} : {rate}",
            *(
                percent(draw.whole(rate / 100, n, k))
                for n, k in ((200, 80), (500, 250), (1000, 250))
            ),
        ]
        for rate in (50, 52, 55, 60)
    ]
    sizes = ("200, 80 borderline (built-in world)", "500, 250", "1,000, 250")
    table(["true win rates, %", *sizes], rows)


if __name__ == "__main__":
    main()
