"""Scores of answers by numeric judges: gold scores and the newest reward models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from alignment.config.vocabulary import DOMAINS
from alignment.errors import DataError
from alignment.preferences.prompts import Prompt
from alignment.preferences.schema import opening, text_digest
from alignment.utils.progress import Progress

if TYPE_CHECKING:
    from alignment.config.compute import ComputeConfig
    from alignment.rewards.cache import ScoreCache

Key = tuple[str, str, bool]
"""Prompt id, text, and whether the answer ended with EOS: a score depends on these three."""


def add_gold(table: pd.DataFrame, prompts: Sequence[Prompt]) -> None:
    """Add the columns `gold_helpfulness`, `gold_safety`, `refused`, `harmful` and `subject`."""
    from alignment.world.gold import gold

    by_id = {prompt.id: prompt for prompt in prompts}
    golds = [
        gold(by_id[row.prompt_id].messages, row.text, row.finished)
        for row in table.itertuples(index=False)
    ]
    table["gold_helpfulness"] = np.array([each.helpfulness for each in golds], float)
    table["gold_safety"] = np.array([each.safety for each in golds], float)
    table["refused"] = np.array([each.refused for each in golds], bool)
    table["harmful"] = np.array([each.harmful for each in golds], bool)
    subjects = subjects_of(prompts, world=True)
    table["subject"] = [subjects[name] for name in table.prompt_id]


def add_refusals(
    table: pd.DataFrame, prompts: Sequence[Prompt], refuses: Callable[[str], bool]
) -> None:
    """Add the columns `refused`, from the beginning of each answer, and `subject`."""
    table["refused"] = np.array([refuses(text) for text in table.text], bool)
    subjects = subjects_of(prompts, world=False)
    table["subject"] = [subjects[name] for name in table.prompt_id]


def subjects_of(prompts: Sequence[Prompt], *, world: bool) -> dict[str, str]:
    """Prompt id → what prompts have in common that are not independent: in the built-in world what
    they ask about in whatever words, else the first question of the dialogue."""
    if not world:
        return {prompt.id: text_digest(opening(prompt.messages))[:16] for prompt in prompts}
    from alignment.world.tasks import parse

    return {
        prompt.id: " ".join(task.unit) for prompt in prompts if (task := parse(prompt.messages))
    }


def add_reward_scores(
    sides: Mapping[str, pd.DataFrame],
    prompts: Sequence[Prompt],
    models: Mapping[str, Path],
    *,
    judge: str = "rm",
    compute: ComputeConfig,
    batch_tokens: int,
    progress: Progress,
    cache: ScoreCache | None = None,
) -> None:
    """Add `<judge>_helpfulness` and `<judge>_safety`: standardised scores by one pair of models.

    Both models score every answer, for plots of combined rewards; win rates use only the prompts of
    the axis. Equal answers to a prompt are scored once. All processes call it, and share the work.

    Args:
        sides: side → its answers; columns are added in place.
        models: axis → reward model directory.
        batch_tokens: maximum tokens of one forward pass.
        cache: scores found in it are not computed again.

    Raises:
        DataError: an answer belongs to none of `prompts`.
    """
    from alignment.rewards.model import RewardModel

    by_id = {prompt.id: prompt for prompt in prompts}
    keys: dict[str, list[Key]] = {
        side: list(zip(table.prompt_id, table.text, table.finished, strict=True))
        for side, table in sides.items()
    }
    distinct = list(dict.fromkeys(chain.from_iterable(keys.values())))
    unknown = next((prompt for prompt, _, _ in distinct if prompt not in by_id), None)
    if unknown is not None:
        raise DataError(
            f"prompt {unknown} of an earlier version is not among the evaluation prompts",
            remedy="evaluate the earlier version again with the present prompts",
        )
    triples = [(by_id[prompt].messages, text, finished) for prompt, text, finished in distinct]
    for axis in DOMAINS:
        progress.begin(f"{axis} rewards", total=len(triples), unit="answers")
        model = RewardModel.of_stage(models[axis], compute, cache)
        scores = np.asarray(
            model.standardise(model.score_texts(triples, tokens_per_batch=batch_tokens)), float
        )
        progress.advance(len(triples))
        del model
        by_key = dict(zip(distinct, scores, strict=True))
        for side, table in sides.items():
            table[f"{judge}_{axis}"] = np.array([by_key[key] for key in keys[side]], float)
    if cache is not None:
        cache.report(progress)
