"""The handful of figures that every view of a version shows first, in this order.

`align status`, `align compare`, the report and MLflow all take names and titles from here, so that
a figure has one name wherever it is met.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from alignment.config.vocabulary import DOMAINS

JUDGE_TITLES = {"gold": "gold", "rm": "RM", "guard": "guard RM", "judge": "LM judge"}

OWN_TEST = "own_test_accuracy_"
"""Begins the names of accuracies that say nothing beside another version's: each has its own test
set, the later ones harder."""
SAME_TEST = "same_test_accuracy_"
"""Begins the names of those of all versions on the newest one's test set."""


@dataclass(frozen=True)
class Headline:
    """One figure: its metric name and how it is shown."""

    name: str
    title: str
    unit: Literal["share", "nats", "tokens"]
    interval: bool = False
    """Whether `<name>_low` and `<name>_high` exist as well."""
    description: str = ""

    @property
    def compares(self) -> bool:
        """Whether it may stand beside the same figure of another version."""
        return not self.name.startswith(OWN_TEST)

    def show(self, figures: Mapping[str, float | None]) -> str:
        """The figure for a person: `78.1 % [71.0, 84.2]`, or a dash where it is unknown."""
        value = figures.get(self.name)
        if value is None or value != value:
            return "–"
        low, high = figures.get(f"{self.name}_low"), figures.get(f"{self.name}_high")
        if self.unit == "share":
            text = f"{100 * value:.1f} %"
            if self.interval and low is not None and high is not None:
                text += f" [{100 * low:.0f}, {100 * high:.0f}]"
            return text
        return f"{brief(value)} {self.unit}"


def brief(value: float) -> str:
    """One decimal from 10 on, else two."""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


HEADLINES: tuple[Headline, ...] = (
    Headline(
        "win_helpfulness",
        "helpfulness win rate vs SFT",
        "share",
        True,
        "by the primary judge: gold in the built-in world, else the version's own reward model; "
        "`align compare` has all versions judged by the newest",
    ),
    Headline(
        "win_safety",
        "safety win rate vs SFT",
        "share",
        True,
        "by the primary judge, on safety prompts",
    ),
    Headline(
        f"{OWN_TEST}helpfulness",
        "helpfulness RM accuracy, own test set",
        "share",
        True,
        "held-out comparisons whose better answer this version's reward model scores higher; "
        "every version has a test set of its own, so compare in `align compare` or `align rewards`",
    ),
    Headline(
        f"{OWN_TEST}safety",
        "safety RM accuracy, own test set",
        "share",
        True,
        "the same for the safety reward model",
    ),
    Headline(
        "kl_sft",
        "KL from SFT",
        "nats",
        False,
        "nats per answer, on the version's own answers to the evaluation prompts",
    ),
    Headline(
        "false_refusal",
        "false refusals",
        "share",
        True,
        "refused share of borderline prompts (of helpfulness prompts where none are borderline)",
    ),
    Headline(
        "length",
        "answer length",
        "tokens",
        False,
        "mean tokens of an answer",
    ),
)


def headline(stages: Mapping[str, Mapping[str, float | None]]) -> dict[str, float]:
    """The headline figures of one version, in order, with their interval bounds.

    Args:
        stages: stage name → that stage's metrics. Reward accuracies come from the two reward
            stages (`accuracy`), all else from `evaluate`; what is unknown or undefined is left out.
    """
    merged = dict(stages.get("evaluate", {}))
    for domain in DOMAINS:
        for suffix in ("", "_low", "_high"):
            value = stages.get(f"reward_{domain}", {}).get(f"accuracy{suffix}")
            merged[f"{OWN_TEST}{domain}{suffix}"] = value
    figures: dict[str, float] = {}
    for entry in HEADLINES:
        bounds = ("", "_low", "_high") if entry.interval else ("",)
        for name in (f"{entry.name}{bound}" for bound in bounds):
            value = merged.get(name)
            if value is not None and value == value:
                figures[name] = value
    return figures
