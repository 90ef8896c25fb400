"""Pairs on their way to annotators: what versions collected, and which of it goes out next."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alignment.config.program import ProgramConfig
from alignment.config.vocabulary import DOMAINS
from alignment.errors import AlignError, DataError
from alignment.operations.status import done_stages
from alignment.preferences.annotation import export
from alignment.preferences.exports import Export, Tool, exported_pairs, judged, verdicts
from alignment.preferences.store import PreferenceStore
from alignment.utils.progress import Progress, SilentProgress
from alignment.utils.seeds import derive_seed

Selection = Literal["random", "uncertain"]


@dataclass(frozen=True)
class Collected:
    """The pairs of one version.

    Attributes:
        exported: how many were handed out before.
        judged: how many have a verdict in the store.
        waiting: those that were neither handed out nor judged.
    """

    version: str
    pairs: list[dict[str, Any]]
    exported: int
    judged: int
    waiting: list[dict[str, Any]]


def outbox_dir(workspace: Path) -> Path:
    """Where files for annotators are put unless told otherwise."""
    return workspace / "outbox"


def collected(program: ProgramConfig) -> list[Collected]:
    """The pairs of every version whose `collect` is done, oldest version first."""
    store = PreferenceStore(program.workspace / "preferences")
    gone, standing = exported_pairs(store.root), verdicts(store)
    found = []
    for version, stages in done_stages(program).items():
        if "collect" in stages:
            text = (stages["collect"] / "pairs.jsonl").read_text(encoding="utf-8")
            pairs = [json.loads(line) for line in text.splitlines()]
            texts = [tuple(side["text"] for side in pair["responses"]) for pair in pairs]
            known = judged(standing, pairs, texts)
            exported = np.array([pair["id"] in gone for pair in pairs], dtype=bool)
            left = [pair for pair, no in zip(pairs, known | exported, strict=True) if not no]
            counts = int(exported.sum()), int(known.sum())
            found.append(Collected(version, pairs, *counts, left))
    return found


def export_pairs(
    program: ProgramConfig,
    version: str | None = None,
    *,
    tool: Tool = "jsonl",
    selection: Selection = "random",
    count: int | None = None,
    out: Path | None = None,
    again: bool = False,
    progress: Progress | None = None,
) -> Export:
    """Hand pairs out to annotators. Those that were handed out or judged before stay behind.

    Args:
        version: whose pairs; unset: the newest version that has collected some.
        selection: at random, or those first about which the newest reward models are least sure.
        count: at most so many.
        out: file or directory; unset: the workspace's `outbox/`.
        again: hand out what was handed out or judged before, too.

    Raises:
        DataError: no pairs were collected, or all were handed out or judged.
        AlignError: no reward models to ask, or the file cannot be written.
    """
    chosen = _choose(program, version)
    store = PreferenceStore(program.workspace / "preferences")
    pairs = chosen.pairs if again else chosen.waiting
    if chosen.pairs and not pairs:
        raise DataError(
            f"all {len(chosen.pairs)} pairs of {chosen.version} were handed out or judged before",
            remedy="`align annotate list` shows them; --again hands them out once more",
        )
    uncertainty = None
    if selection == "uncertain":
        gaps = _gaps(program, pairs, progress or SilentProgress())
        uncertainty = lambda pair: -gaps[pair["id"]]  # noqa: E731
    if out is None:
        out = outbox_dir(program.workspace)
        out.mkdir(parents=True, exist_ok=True)
    return export(
        store,
        pairs,
        tool,
        out,
        seed=derive_seed(program.seed, chosen.version, "annotate"),
        limit=count,
        uncertainty=uncertainty,
        version=chosen.version,
    )


def _choose(program: ProgramConfig, version: str | None) -> Collected:
    found = [one for one in collected(program) if version in (None, one.version)]
    if not found:
        split = program.intake.source == "split"
        raise DataError(
            "no version has collected pairs yet"
            if version is None
            else f"{version} has not collected pairs yet",
            remedy="a program with intake.source: split collects none; inbox does"
            if split
            else "`align status` shows the collect stages; collect.pairs must be above 0",
        )
    return found[-1]


def _gaps(
    program: ProgramConfig, pairs: list[dict[str, Any]], progress: Progress
) -> dict[str, float]:
    from alignment.rewards.uncertainty import score_gaps

    names: dict[str, str] = {domain: f"reward_{domain}" for domain in DOMAINS}
    done = done_stages(program)
    for version in reversed(program.version_names):
        stages = done.get(version, {})
        if all(name in stages for name in names.values()):
            models = {domain: stages[name] / "model" for domain, name in names.items()}
            gaps = score_gaps(pairs, models, program.compute, progress)
            return {pair["id"]: float(gap) for pair, gap in zip(pairs, gaps, strict=True)}
    raise AlignError(
        "there are no reward models yet that could say what they are unsure about",
        remedy="--select random, or run a version first",
    )
