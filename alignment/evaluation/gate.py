"""The promotion gate: a rule over the figures of an evaluation that decides on a new champion.

A version becomes champion if all of this holds:

* By the primary judge, it beats the champion on both axes (interval above ½), or it beats the
  champion on one axis and is not worse on the other by more than a margin.
* If that judge is a reward model, it is shown to beat chance on held-out comparisons, or another
  judge finds the same (`judge_checks`).
* False refusals, length, KL and the shares of degenerate answers stay within bounds, the shares
  also of SFT, so that no series of champions creeps away from it (`bound_checks`).
* No judge with a veto (`promote.judges`) finds it worse.

In the paper people decide (Llama 2 §3.4); this gate applies their criteria in figures.

A figure that is missing or not finite fails its check: what was not measured is not good. A judge
with a veto that has not compared the two does not block the promotion, but the verdict names it, so
that nobody takes its silence for agreement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from alignment.config.evaluate import PromoteConfig
from alignment.evaluation.bound_checks import Bounds
from alignment.evaluation.checks import Check, Figures
from alignment.evaluation.judge_checks import Accuracies, Hearing
from alignment.evaluation.judging import ALONE, CLIMBED, Row
from alignment.pipeline.node import FIRST_CHAMPION


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
    accuracies: Accuracies | None = None,
) -> GateDecision:
    """Apply the gate.

    Args:
        champion: the current champion (`sft` at first).
        rates: rows of winrates.json.
        standings: side → figures, at least of `version`, `champion` and SFT.
        judges: available judges, the primary one first.
        config: margins and bounds.
        accuracies: of judges that are reward models, on held-out comparisons.
    """
    hearing = Hearing(version, champion, list(rates), judges, accuracies or {}, config)
    new, old = standings.get(version, {}), standings.get(champion, {})
    bounds = Bounds(version, champion, new, old, config)
    checks = hearing.checks() + bounds.checks(standings.get(FIRST_CHAMPION, {}))
    promoted = all(check.ok for check in checks)
    reasons = [check.said for check in checks if check.ok == promoted or check.value is None]
    head = (
        f"{version} becomes champion in place of {champion}"
        if promoted
        else f"{version} is not promoted, {champion} stays champion"
    )
    if judges and judges[0] == CLIMBED and not hearing.independent():
        why = hearing.unheard()
        if len(judges) == 1:
            why = "set rewards.guard_share or evaluate.judge"
        head = f"{ALONE}{f' ({why})' if why else ''}. {head}"
    return GateDecision(
        version=version,
        promoted=promoted,
        champion=version if promoted else champion,
        previous_champion=champion,
        judge=judges[0] if judges else None,
        verdict=f"{head}: {'; '.join(dict.fromkeys(reasons))}.",
        checks=checks,
    )
