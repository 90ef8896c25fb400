"""Win rates by the language-model judge: chooses the pairs of answers and counts the outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from alignment.config.evaluate import EvaluateConfig, JudgeConfig
from alignment.config.vocabulary import DOMAINS
from alignment.evaluation.judging import Row, by_prompt
from alignment.evaluation.llm_judge import (
    AnswerPair,
    JudgeOutcomes,
    judge_pairs,
    read_replies,
    write_replies,
)
from alignment.evaluation.position_bias import bias_figures
from alignment.evaluation.winrate import win_rate
from alignment.inference.endpoint import Endpoint
from alignment.preferences.prompts import Prompt
from alignment.utils.files import read_json
from alignment.utils.progress import Progress

JUDGE = "judge"
VERDICTS = "verdicts.jsonl"


def rivals(side: str, sides: Sequence[str], config: JudgeConfig, champion: str) -> list[str]:
    """The sides that `side` is compared with: those of `config.against` that exist.

    `previous` is the final arm of the preceding version, `champion` that of `champion`.
    """
    version = side.partition("/")[0]
    before = [name for name in sides if name.partition("/")[0] != version and "/" not in name]
    meant = {"champion": champion, "previous": before[-1] if before else ""}
    opponents = [meant.get(name, name) for name in config.against]
    return [name for name in dict.fromkeys(opponents) if name in before]


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
    by_id = {prompt.id: prompt for prompt in prompts}
    rows: list[Row] = []
    results: list[JudgeOutcomes] = []
    named: list[str] = []  # the subject of every judged pair
    verdicts_path = scratch / VERDICTS
    for rival in rivals(side, list(sides), config.judge, champion):
        for axis in DOMAINS:
            pairs, about = _pairs(sides[side], sides[rival], axis, by_id, config.judge, rival)
            if not pairs:
                continue
            outcome = judge_pairs(
                pairs,
                axis,
                endpoint,
                config.judge,
                replies=verdicts_path,
                seed=seed,
                progress=progress,
            )
            results.append(outcome)
            if not outcome.pairs:
                continue
            own, other, subjects = zip(*(about[name] for name in outcome.pairs), strict=True)
            named += subjects
            numbers = np.unique(subjects, return_inverse=True)[1]
            rate = win_rate(outcome.outcomes, own, other, subjects=numbers)
            rows.append({"a": side, "b": rival, "judge": JUDGE, "axis": axis, **rate.row()})
    write_replies(out / VERDICTS, read_replies(verdicts_path))
    return rows, _about(results, np.array(named))


def carried_rates(earlier: Mapping[str, Path]) -> list[Row]:
    """The judge's rows of earlier versions, which stay valid: no answer of theirs has changed."""
    rows: list[Row] = []
    for version, directory in earlier.items():
        stored: list[dict[str, Any]] = read_json(directory / "winrates.json")["rows"]
        rows += [row for row in stored if row["judge"] == JUDGE and row["a"] == version]
    return rows


def _pairs(
    own: pd.DataFrame,
    other: pd.DataFrame,
    axis: str,
    prompts: Mapping[str, Prompt],
    config: JudgeConfig,
    rival: str,
) -> tuple[list[AnswerPair], dict[str, tuple[int, int, str]]]:
    """Pairs on the prompts with the lowest ids: a random choice (ids are digests), the same for
    every version; and of each pair the two lengths in characters and the prompt's subject."""
    mine, theirs = (by_prompt(table[table.domain == axis]) for table in (own, other))
    pairs, about = [], {}
    for prompt in mine.index.intersection(theirs.index)[: config.prompts_per_axis]:
        a, b = str(mine.text[prompt]), str(theirs.text[prompt])
        name = f"{prompt} vs {rival}"
        pairs.append(AnswerPair(name, prompts[prompt].messages, a, b))
        about[name] = (len(a), len(b), str(mine.subject[prompt]))
    return pairs, about


def _about(results: Sequence[JudgeOutcomes], subjects: np.ndarray) -> dict[str, float]:
    total = sum(len(outcome.pairs) for outcome in results)
    if not total:
        return {}
    differing = sum(outcome.inconsistent * len(outcome.pairs) for outcome in results)
    return {
        "inconsistent": differing / total,
        "failed": float(sum(outcome.failed for outcome in results)),
        "pairs": float(total),
        **bias_figures(np.concatenate([outcome.place for outcome in results]), subjects),
    }
