"""Win rates by the language-model judge: which answers are shown to it, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from alignment.config.evaluate import EvaluateConfig, JudgeConfig
from alignment.config.vocabulary import DOMAINS
from alignment.evaluation.judging import Row, by_prompt
from alignment.evaluation.llm_judge import Judged, Pair, judge_pairs, read_kept, write_sorted
from alignment.evaluation.winrate import LEVEL, from_outcomes
from alignment.inference.endpoint import Endpoint
from alignment.preferences.prompts import Prompt
from alignment.utils.files import read_json
from alignment.utils.progress import Progress
from alignment.utils.seeds import derive_seed

JUDGE = "judge"
VERDICTS = "verdicts.jsonl"


def rivals(side: str, sides: Sequence[str], config: JudgeConfig, champion: str) -> list[str]:
    """The sides that `side` is compared with: those of `config.against` that exist.

    `previous` is the final arm of the preceding version, `champion` that of `champion`.
    """
    version = side.partition("/")[0]
    before = [name for name in sides if name.partition("/")[0] != version and "/" not in name]
    meant = {"champion": champion, "previous": before[-1] if before else ""}
    wanted = [meant.get(name, name) for name in config.against]
    return [name for name in dict.fromkeys(wanted) if name in before]


def judged_rates(
    side: str,
    sides: Mapping[str, pd.DataFrame],
    prompts: Sequence[Prompt],
    config: EvaluateConfig,
    champion: str,
    *,
    seed: int,
    scratch: Path,
    out: Path,
    progress: Progress,
) -> tuple[list[Row], dict[str, float]]:
    """Rows for winrates.json, and figures about the judge itself; verdicts go to `out`.

    Args:
        champion: the version recommended before this evaluation.

    Raises:
        StageError: the endpoint refuses, or too many verdicts could not be had.
    """
    if config.judge is None:
        return [], {}
    endpoint = Endpoint(config.judge)
    asked = {prompt.id: prompt for prompt in prompts}
    rows: list[Row] = []
    every: list[Judged] = []
    kept = scratch / VERDICTS
    for rival in rivals(side, list(sides), config.judge, champion):
        for axis in DOMAINS:
            pairs, lengths = _pairs(sides[side], sides[rival], axis, asked, config.judge, rival)
            if not pairs:
                continue
            judged = judge_pairs(
                pairs, axis, endpoint, config.judge, kept=kept, seed=seed, progress=progress
            )
            every.append(judged)
            if not judged.pairs:
                continue
            own, other = zip(*(lengths[name] for name in judged.pairs), strict=True)
            rate = from_outcomes(
                judged.outcomes,
                own,
                other,
                seed=derive_seed(seed, "bootstrap", axis),
                samples=config.bootstrap_samples,
                level=LEVEL,
            )
            rows.append({"a": side, "b": rival, "judge": JUDGE, "axis": axis, **rate.row()})
    write_sorted(out / VERDICTS, read_kept(kept))
    return rows, _about(every)


def carried_rates(earlier: Mapping[str, Path]) -> list[Row]:
    """The judge's rows of earlier versions: neither their answers nor the judge have changed."""
    rows: list[Row] = []
    for version, directory in earlier.items():
        found: list[dict[str, Any]] = read_json(directory / "winrates.json")["rows"]
        rows += [row for row in found if row["judge"] == JUDGE and row["a"] == version]
    return rows


def _pairs(
    own: pd.DataFrame,
    other: pd.DataFrame,
    axis: str,
    prompts: Mapping[str, Prompt],
    config: JudgeConfig,
    rival: str,
) -> tuple[list[Pair], dict[str, tuple[int, int]]]:
    """The first prompts by id, which are digests: a random choice, alike for every version."""
    mine, theirs = (by_prompt(table[table.domain == axis]) for table in (own, other))
    pairs, lengths = [], {}
    for prompt in mine.index.intersection(theirs.index)[: config.prompts_per_axis]:
        a, b = str(mine.text[prompt]), str(theirs.text[prompt])
        name = f"{prompt} vs {rival}"
        pairs.append(Pair(name, prompts[prompt].messages, a, b))
        lengths[name] = (len(a), len(b))
    return pairs, lengths


def _about(every: Sequence[Judged]) -> dict[str, float]:
    total = sum(len(judged.pairs) for judged in every)
    if not total:
        return {}
    differing = sum(judged.inconsistent * len(judged.pairs) for judged in every)
    return {
        "judge/inconsistent": differing / total,
        "judge/failed": float(sum(judged.failed for judged in every)),
        "judge/pairs": float(total),
    }
