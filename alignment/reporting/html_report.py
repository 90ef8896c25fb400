"""One self-contained HTML page about a program: which version is best, why, and at what price.

A section is a row of `SECTIONS`: a function that gathers figures and pictures from what stages left
on disk, and a template in templates/ that sets them. A section without data is named at the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from alignment.reporting import sections_answers as answers
from alignment.reporting import sections_lineage as lineage
from alignment.reporting import sections_training as training
from alignment.reporting import sections_versions as versions
from alignment.reporting.comparison import Comparison, Stages, compare
from alignment.reporting.overoptimisation import over_optimisation
from alignment.utils.files import atomic_write_text

Section = Callable[[Stages, Comparison], dict[str, Any] | None]
"""What the section's template shows; None where there are no data."""

SECTIONS: tuple[tuple[str, str, Section], ...] = (
    ("versions", "Versions", versions.table),
    ("path", "Helpfulness and safety", versions.path),
    ("lineage", "Made from", lineage.lineage),
    ("decisions", "Promotion", versions.decisions),
    ("matrix", "Every version against every other", versions.matrix),
    ("forgetting", "Forgetting", versions.forgetting),
    ("over-optimisation", "Over-optimisation", over_optimisation),
    ("rewards", "Rewards of every version by one judge", answers.rewards),
    ("accuracy", "Reward models", training.reward_accuracy),
    ("best-of-n", "Best of n", training.best_of_n),
    ("temperature", "Sampling temperature", training.temperature),
    ("ppo", "PPO", training.ppo),
    ("texts", "Length and variety", answers.texts),
    ("samples", "The same prompts across versions", answers.samples),
    ("cost", "Cost", lineage.cost),
)
"""Anchor (its template's name), heading, and what is shown, in the order of the page."""


def write_report(
    stages: Stages, target: Path, *, title: str, comparison: Comparison | None = None
) -> None:
    """Write the page for the given versions to `target`.

    Args:
        stages: version → stage → committed directory.
        comparison: what `compare` made of them, with people's decisions.

    Raises:
        AlignError: no version is evaluated.
    """
    atomic_write_text(target, render_report(stages, title=title, comparison=comparison))


def render_report(stages: Stages, *, title: str, comparison: Comparison | None = None) -> str:
    """The page as text; it names no path, so the same figures give the same page."""
    comparison = comparison or compare(stages)
    templates = environment()
    sections, missing = [], []
    for anchor, heading, gather in SECTIONS:
        values = gather(stages, comparison)
        if values is None:
            missing.append(heading)
        else:
            content = templates.get_template(f"{anchor}.html.j2").render(values)
            sections.append((anchor, heading, Markup(content)))
    return templates.get_template("page.html.j2").render(
        title=title,
        warning=comparison.warning,
        summary=comparison.summary(),
        synthetic="gold" in comparison.judges,
        sections=sections,
        missing=missing,
    )


def environment() -> Environment:
    """The templates: every value is escaped, and one that is missing is an error."""
    templates = Environment(
        loader=PackageLoader("alignment.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["code"] = with_code
    return templates


def with_code(text: str) -> Markup:
    """Plain text in which `commands` between backquotes are set as such."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))
