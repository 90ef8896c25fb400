"""Exports pairs for annotation: which pairs the versions collected, and which go out next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alignment.config.program import ProgramConfig
from alignment.config.vocabulary import DOMAINS
from alignment.errors import AlignError, DataError
from alignment.operations.status import done_stages
from alignment.preferences.annotation import export_tasks
from alignment.preferences.exports import Export, Tool, exported_pairs, judged_ids, judged_mask
from alignment.preferences.store import PreferenceStore
from alignment.utils.json_lines import read_jsonl
from alignment.utils.progress import Progress, SilentProgress
from alignment.utils.seeds import derive_seed

Selection = Literal["random", "uncertain"]


@dataclass(frozen=True)
class CollectedPairs:
    """The pairs that one version collected.

    Attributes:
        exported: number of pairs exported before.
        judged: number of pairs with a verdict in the store.
        waiting: pairs neither exported nor judged.
    """

    version: str
    pairs: list[dict[str, Any]]
    exported: int
    judged: int
    waiting: list[dict[str, Any]]


def export_dir(workspace: Path) -> Path:
    """Default directory of files for annotators."""
    return workspace / "outbox"


def collected_pairs(program: ProgramConfig, any_code: bool = False) -> list[CollectedPairs]:
    """The pairs of every version whose `collect` is done, oldest version first.

    Args:
        any_code: also those that a run would collect again (`done_stages`).
    """
    store = PreferenceStore(program.workspace / "preferences")
    exported_ids, standing = exported_pairs(store.root), judged_ids(store)
    collections = []
    for version, stages in done_stages(program, any_code).items():
        if "collect" in stages:
            pairs = read_jsonl(stages["collect"] / "pairs.jsonl")
            texts = [tuple(side["text"] for side in pair["responses"]) for pair in pairs]
            is_judged = judged_mask(standing, pairs, texts)
            exported = np.array([pair["id"] in exported_ids for pair in pairs], dtype=bool)
            waiting = [pair for pair, no in zip(pairs, is_judged | exported, strict=True) if not no]
            counts = int(exported.sum()), int(is_judged.sum())
            collections.append(CollectedPairs(version, pairs, *counts, waiting))
    return collections


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
    """Export pairs for annotation that were neither exported nor judged before.

    Args:
        version: the version that collected the pairs; None: the newest one with pairs.
        selection: `random`, or `uncertain`: smallest score gap of the newest reward models first.
        count: at most so many pairs.
        out: file or directory; None: `outbox/` in the workspace.
        again: also export pairs that were exported or judged before.

    Raises:
        DataError: no pairs were collected, or all were exported or judged before.
        AlignError: `uncertain` without reward models, or the file cannot be written.
    """
    chosen = _choose(program, version)
    store = PreferenceStore(program.workspace / "preferences")
    pairs = chosen.pairs if again else chosen.waiting
    if chosen.pairs and not pairs:
        raise DataError(
            f"all {len(chosen.pairs)} pairs of {chosen.version} were exported or judged before",
            remedy="`align annotate list` shows them; --again exports them once more",
        )
    uncertainty = None
    if selection == "uncertain":
        gaps = _gaps(program, pairs, progress or SilentProgress())
        uncertainty = lambda pair: -gaps[pair["id"]]  # noqa: E731
    if out is None:
        out = export_dir(program.workspace)
        out.mkdir(parents=True, exist_ok=True)
    return export_tasks(
        store,
        pairs,
        tool,
        out,
        seed=derive_seed(program.seed, chosen.version, "annotate"),
        limit=count,
        uncertainty=uncertainty,
        version=chosen.version,
    )


def _choose(program: ProgramConfig, version: str | None) -> CollectedPairs:
    candidates = [one for one in collected_pairs(program) if version in (None, one.version)]
    if not candidates:
        split = program.intake.source == "split"
        raise DataError(
            "no version has collected pairs yet"
            if version is None
            else f"{version} has not collected pairs yet",
            remedy="a program with intake.source: split collects none; inbox does"
            if split
            else "`align status` shows the collect stages; collect.pairs must be above 0",
        )
    return candidates[-1]


def reward_models(program: ProgramConfig) -> dict[str, Path] | None:
    """Domain → the newest version's reward model; None if no version has both yet."""
    done = done_stages(program)
    for version in reversed(program.version_names):
        stages = done.get(version, {})
        if all(f"reward_{domain}" in stages for domain in DOMAINS):
            return {domain: stages[f"reward_{domain}"] / "model" for domain in DOMAINS}
    return None


def _gaps(
    program: ProgramConfig, pairs: list[dict[str, Any]], progress: Progress
) -> dict[str, float]:
    models = reward_models(program)
    if models is None:
        raise AlignError(
            "pairs cannot be ranked by uncertainty: there are no reward models yet",
            remedy="draw them at random (--select random), or run a version first",
        )
    from alignment.rewards.uncertainty import score_gaps

    gaps = score_gaps(pairs, models, program.compute, progress)
    return {pair["id"]: float(gap) for pair, gap in zip(pairs, gaps, strict=True)}
