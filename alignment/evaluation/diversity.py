"""How far a policy's samples for one prompt repeat each other (Llama 2, Fig 21).

One answer to each of many prompts cannot show it: a policy that has collapsed to a single answer
per prompt still answers different prompts differently.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alignment.evaluation.standings import bounded
from alignment.evaluation.textstats import self_bleu
from alignment.utils.statistics import bootstrap_mean

PROMPTS = 20
"""At most so many prompts; Llama 2 has two kinds of ten each, factual and creative."""
SAMPLES = 25
"""Answers to each, as in Llama 2."""


def number_of_prompts(prompts: int) -> int:
    """Of how many of `prompts` evaluation prompts the diversity is measured: `PROMPTS`, or so many
    that their samples are no more than the evaluation's own answers, but at least one."""
    return min(PROMPTS, max(1, prompts // SAMPLES), prompts)


def diversity_figures(
    samples: Sequence[Sequence[str]],
    subjects: Sequence[str],
    *,
    seed: int,
    resamplings: int,
    level: float,
) -> dict[str, float]:
    """`self_bleu_per_prompt`, the mean over prompts of Self-BLEU within each, with its interval.

    Args:
        samples: prompt by prompt the texts of its answers. A prompt with fewer than two answers of
            at least a word is left out; there are no figures if none remains.
        subjects: of each prompt; those of one subject are not independent.
    """
    values = np.array([self_bleu(texts) for texts in samples])
    there = ~np.isnan(values)
    if not there.any():
        return {}
    interval = bootstrap_mean(
        values[there],
        seed=seed,
        samples=resamplings,
        level=level,
        clusters=np.unique(subjects, return_inverse=True)[1][there],
    )
    return bounded("self_bleu_per_prompt", interval)
