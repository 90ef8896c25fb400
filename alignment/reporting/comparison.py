"""All versions side by side, read from what their stages left on disk.

Nothing is computed here: `align status`, MLflow, the table, the report and the JSON show the
figures that the evaluate and reward stages wrote. Win rates in the table come from the newest
evaluation, which has judged the answers of all versions with one pair of reward models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from alignment.config.tracking import CostConfig
from alignment.config.vocabulary import DOMAINS, version_order
from alignment.errors import AlignError
from alignment.evaluation.judging import ALONE, CLIMBED, Row
from alignment.evaluation.responses import is_constant, is_student, side_order, side_title
from alignment.reporting.champion_summary import champion_lines
from alignment.reporting.cost import Cost, together, version_costs
from alignment.reporting.headline import headline
from alignment.reporting.origin import BatchUse, batches
from alignment.utils.files import read_json

Stages = Mapping[str, Mapping[str, Path]]
Figures = Mapping[str, float | None]


@dataclass(frozen=True)
class Entry:
    """One side of the comparison."""

    side: str
    version: str
    champion: bool
    figures: Figures
    """Everything in standings.json of the newest evaluation."""
    headline: dict[str, float]
    """What `align status` and MLflow show for the version (empty for its other arms)."""

    @property
    def title(self) -> str:
        """The name shown to people."""
        return side_title(self.side)


@dataclass(frozen=True)
class Comparison:
    """Versions in order, and how each fared against each."""

    newest: str
    """The version whose evaluation the figures come from."""
    judges: list[str]
    level: float
    entries: list[Entry]
    winrates: list[Row]
    decisions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Version → decision.json."""
    forgetting: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Version → rows of its forgetting.json."""
    costs: dict[str, dict[str, Cost]] = field(default_factory=dict)
    """Version → stage → what it cost."""
    cost_config: CostConfig = field(default_factory=CostConfig)
    champion: str | None = None
    """The version now recommended, shown or not; None before the first decision."""
    words: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Version → a person's decision on it, where there is one."""
    accuracy: dict[str, dict[str, dict[str, float | None]]] = field(default_factory=dict)
    """Axis → version → accuracy of its reward model with its interval, on the same held-out
    comparisons for all versions: those that the newest reward models were measured on."""
    lm_judge: dict[str, float] = field(default_factory=dict)
    """Figures about the language model that judged the newest version (`position_bias`)."""
    batches: list[BatchUse] = field(default_factory=list)
    """The batches of all versions, shown or not, in order."""

    @property
    def warning(self) -> str | None:
        """What has to be read before any figure: that nobody independent judged."""
        others = [judge for judge in self.judges if judge != CLIMBED]
        compared = any(
            entry.figures.get(f"win/{judge}/{axis}") is not None
            for entry in self.entries
            for judge, axis in product(others, DOMAINS)
            if entry.side != "sft"  # ½ by definition
        )
        if compared or CLIMBED not in self.judges:
            return None
        silent = f"{', '.join(others)} compared nothing" if others else ""
        return f"{ALONE}. {silent or 'Set `rewards.guard_share` or `evaluate.judge`'}."

    def summary(self) -> list[str]:
        """Who is champion, why, and made from what, in sentences."""
        return champion_lines(self.champion, self.decisions, self.words, self.batches)

    @property
    def policies(self) -> list[Entry]:
        """The entries without students, who go a way of their own, and without constants."""
        return [
            entry
            for entry in self.entries
            if not is_student(entry.side) and not is_constant(entry.side)
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without NaN."""
        return {
            "newest": self.newest,
            "judges": self.judges,
            "warning": self.warning,
            "level": self.level,
            "champion": self.champion,
            "versions": [
                {
                    "name": entry.side,
                    "title": entry.title,
                    "version": entry.version,
                    "champion": entry.champion,
                    "headline": entry.headline,
                    "figures": dict(entry.figures),
                }
                for entry in self.entries
            ],
            "winrates": self.winrates,
            "reward_accuracy": self.accuracy,
            "lm_judge": self.lm_judge,
            "decisions": self.decisions,
            "approvals": self.words,
            "batches": [batch.to_dict() for batch in self.batches],
            "forgetting": self.forgetting,
            "costs": {
                version: {
                    "total": together(stages.values()).figures(),
                    "stages": {stage: cost.figures() for stage, cost in stages.items()},
                }
                for version, stages in self.costs.items()
            },
        }


def compare(
    stages: Stages,
    *,
    cost: CostConfig | None = None,
    champion: str | None = None,
    words: Mapping[str, dict[str, Any]] | None = None,
    every: Stages | None = None,
) -> Comparison:
    """Collect the figures of the given versions.

    Args:
        stages: version → stage → committed directory; versions without `evaluate` are left out.
        cost: how energy is reckoned.
        champion: the version now recommended; by default what the last verdict says. A person may
            have decided otherwise.
        words: version → a person's decision.
        every: `stages` of all versions, also those that are not to be shown: a version learned from
            the batches of all versions before it.

    Raises:
        AlignError: no version is evaluated.
    """
    evaluated = sorted(
        (name for name, done in stages.items() if "evaluate" in done), key=version_order
    )
    if not evaluated:
        raise AlignError("no version is evaluated yet", remedy="`align run CONFIG`")
    newest = evaluated[-1]
    directory = stages[newest]["evaluate"]
    winrates = read_json(directory / "winrates.json")
    decisions = {
        name: read_json(done["promote"] / "decision.json")
        for name, done in sorted(stages.items(), key=lambda item: version_order(item[0]))
        if "promote" in done
    }
    if champion is None and decisions:
        champion = next(reversed(decisions.values()))["champion"]
    cost = cost or CostConfig()
    entries = []
    for row in read_json(directory / "standings.json"):
        side, version = row["side"], row["side"].partition("/")[0]
        if version not in evaluated and not is_constant(side):
            continue
        entries.append(
            Entry(
                side=side,
                version=version,
                champion=side == champion,
                figures=row["figures"],
                headline=headline(stage_metrics(stages[version])) if side == version else {},
            )
        )
    entries.sort(key=lambda entry: side_order(entry.side))
    shown = {entry.side for entry in entries}
    return Comparison(
        newest=newest,
        judges=winrates["judges"],
        level=winrates["level"],
        entries=entries,
        winrates=[row for row in winrates["rows"] if row["a"] in shown and row["b"] in shown],
        decisions=decisions,
        forgetting={
            name: read_json(stages[name]["evaluate"] / "forgetting.json") for name in evaluated
        },
        costs={name: own for name in evaluated if (own := version_costs(stages[name], cost))},
        cost_config=cost,
        champion=champion,
        words=dict(words or {}),
        accuracy=on_the_same_comparisons(stages[newest]),
        lm_judge=winrates.get("lm_judge", {}),
        batches=batches(every or stages),
    )


def on_the_same_comparisons(
    stages: Mapping[str, Path],
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Domain → version → accuracy of its reward model on the test set of the version whose stages
    these are: `accuracy`, `low`, `high` and `count`."""
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for axis in DOMAINS:
        path = stages.get(f"reward_{axis}", Path()) / "evaluation.json"
        if path.is_file():
            points = read_json(path).get("growth", {}).get("points", [])
            found[axis] = {point["version"]: point["all"] for point in points}
    return found


def stage_metrics(stages: Mapping[str, Path]) -> dict[str, dict[str, float | None]]:
    """Stage → its metrics.json, where there is one."""
    return {
        stage: read_json(path / "metrics.json")
        for stage, path in stages.items()
        if (path / "metrics.json").is_file()
    }
