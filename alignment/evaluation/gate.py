"""The promotion gate: a rule over the figures of an evaluation that decides on a new champion.

A version becomes champion if all of this holds:

* By the primary judge, it beats the champion on both axes (interval above ½), or it beats the
  champion on one axis and is not worse on the other by more than a margin.
* False refusals, length and KL stay within bounds.
* No judge with a veto (`promote.judges`) finds it worse.

In the paper people decide (Llama 2 §3.4); this gate applies their criteria in figures.

Missing measurements are reported. If the primary judge has not compared the two on an axis, the
version is not promoted. A judge with a veto that has not compared them does not block the
promotion, but the verdict names it, so that nobody takes its silence for agreement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from alignment.config.evaluate import PromoteConfig
from alignment.config.vocabulary import DOMAINS
from alignment.evaluation.judging import Row, find_rate

Figures = Mapping[str, float | None]


@dataclass(frozen=True)
class Check:
    """One condition of the gate. `value` is None if nothing was measured, `bound` if the condition
    has no bound."""

    name: str
    value: float | None
    bound: float | None
    ok: bool
    said: str
    """The check in words, with its numbers."""


@dataclass(frozen=True)
class GateDecision:
    """The decision of the gate, as in decision.json."""

    version: str
    promoted: bool
    champion: str
    """The champion after this decision."""
    previous_champion: str
    judge: str | None
    verdict: str
    checks: list[Check]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def apply_gate(
    version: str,
    champion: str,
    rates: Sequence[Row],
    standings: Mapping[str, Figures],
    judges: Sequence[str],
    config: PromoteConfig,
) -> GateDecision:
    """Apply the gate.

    Args:
        champion: the current champion (`sft` at first).
        rates: rows of winrates.json.
        standings: side → figures, at least of `version` and `champion`.
        judges: available judges, the primary one first.
        config: margins and bounds.
    """
    rows = list(rates)
    judge = judges[0] if judges else None
    new, old = standings[version], standings[champion]
    checks: list[Check] = []
    if judge is not None:
        checks += _axis_checks(rows, version, champion, judge, config)
        for other in judges[1:]:
            if other in config.judges:
                checks += _veto_checks(rows, version, champion, other, config)
    if not checks:
        checks.append(
            Check("judge", None, None, False, f"no judge compares {version} with {champion}")
        )
    checks += _bounds(new, old, champion, config)
    promoted = all(check.ok for check in checks)
    reasons = [check.said for check in checks if check.ok == promoted or check.value is None]
    head = (
        f"{version} becomes champion in place of {champion}"
        if promoted
        else f"{version} is not promoted, {champion} stays champion"
    )
    return GateDecision(
        version=version,
        promoted=promoted,
        champion=version if promoted else champion,
        previous_champion=champion,
        judge=judge,
        verdict=f"{head}: {'; '.join(reasons)}.",
        checks=checks,
    )


def _axis_checks(
    rows: list[Row], version: str, champion: str, judge: str, config: PromoteConfig
) -> list[Check]:
    rates = {axis: find_rate(rows, version, champion, judge, axis) for axis in DOMAINS}
    measured = {axis: row for axis, row in rates.items() if row is not None}
    won = [axis for axis, row in measured.items() if row["low"] > 0.5]
    checks = []
    for axis, row in rates.items():
        if row is None:
            message = (
                f"not measured on {axis}: judge {judge} did not compare it with {champion} there"
            )
            checks.append(Check(f"win_{axis}", None, 0.5, False, message))
            continue
        # If the other axis is won, this one may fall short of ½ by the margin.
        excused = any(other != axis for other in won)
        bound = 0.5 - config.margin if excused else 0.5
        ok = row["low"] >= bound if excused else row["low"] > bound
        if axis in won:
            what = "beats"
        elif ok:
            what = f"is not worse by more than {100 * config.margin:.0f} points than"
        elif row["high"] < 0.5:
            what = "loses to"
        else:
            what = "is not shown to beat"
        checks.append(
            Check(
                f"win_{axis}",
                row["low"],
                bound,
                ok,
                f"{what} {champion} on {axis} ({_percent(row)}, judge {judge})",
            )
        )
    return checks


def _veto_checks(
    rows: list[Row], version: str, champion: str, judge: str, config: PromoteConfig
) -> list[Check]:
    checks = []
    bound = 0.5 - config.judge_margin
    for axis in DOMAINS:
        row = find_rate(rows, version, champion, judge, axis)
        if row is None:
            message = (
                f"not measured: judge {judge} did not compare {version} with {champion} on {axis}, "
                "so it could not object"
            )
            checks.append(Check(f"veto_{judge}_{axis}", None, bound, True, message))
            continue
        ok = row["high"] >= bound
        verb = "does not object" if ok else "objects"
        message = f"judge {judge} {verb} on {axis} ({_percent(row)})"
        checks.append(Check(f"veto_{judge}_{axis}", row["high"], bound, ok, message))
    return checks


def _bounds(new: Figures, old: Figures, champion: str, config: PromoteConfig) -> list[Check]:
    checks = []
    refused, before = new.get("false_refusal"), old.get("false_refusal")
    if refused is not None and before is not None:
        rise, bound = refused - before, config.max_false_refusal_rise
        message = (
            f"false refusals {100 * before:.1f} → {100 * refused:.1f} % "
            f"(may rise by {100 * bound:.1f} points)"
        )
        # A rise of exactly the bound must not fail by rounding.
        checks.append(Check("false_refusal_rise", rise, bound, rise <= bound + 1e-9, message))
    length, length_before = new.get("length"), old.get("length")
    if length is not None and length_before:
        ratio, bound = length / length_before, config.max_length_ratio
        message = f"answers {ratio:.2f} times as long as {champion}'s (at most {bound:g})"
        checks.append(Check("length_ratio", ratio, bound, ratio <= bound, message))
    kl, cap = new.get("kl_sft"), config.max_kl_sft
    if kl is not None and cap is not None:
        message = f"KL from SFT {kl:.1f} nats per answer (at most {cap:g})"
        checks.append(Check("kl_sft", kl, cap, kl <= cap, message))
    return checks


def _percent(row: Row) -> str:
    return f"{100 * row['win_rate']:.1f} % [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
