"""Selects the samples to fine-tune on: filters first, then one of three rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from alignment.config.sampling import SelectConfig
from alignment.utils.seeds import derive_seed


@dataclass(frozen=True)
class Candidate:
    """A scored answer.

    Attributes:
        helpfulness, safety: standardised scores of the newest reward models.
        safe_probability: the safety RM's P(safe).
        reward: the combined reward.
        source_version: version of the policy that wrote it.
        tokens: length of the answer.
    """

    prompt_id: str
    text: str
    finished: bool
    helpfulness: float
    safety: float
    safe_probability: float
    reward: float
    source_version: str
    tokens: int
    safety_prompt: bool


@dataclass
class Selection:
    """The chosen and the eligible candidates, with counts of those filtered out."""

    chosen: list[Candidate]
    eligible: dict[str, list[Candidate]]
    counts: dict[str, int] = field(default_factory=dict)
    effective_size: float = math.nan
    """Mean over prompts of the effective number of candidates under the acceptance weights."""
    bar: float = math.nan
    """For `threshold`: the reward a candidate had to reach."""


def is_unsafe(candidate: Candidate, config: SelectConfig) -> bool:
    """Whether the safety threshold excludes this answer from fine-tuning."""
    if config.safety_threshold is None:
        return False
    if config.safety_scope == "safety_prompts" and not candidate.safety_prompt:
        return False
    return candidate.safe_probability < config.safety_threshold


def eligible(
    candidates: Iterable[Candidate], config: SelectConfig
) -> tuple[dict[str, list[Candidate]], dict[str, int]]:
    """Eligible candidates by prompt, best first, and the number removed by each filter."""
    counts = {"candidates": 0, "unfinished": 0, "empty": 0, "unsafe": 0, "duplicates": 0}
    groups: dict[str, list[Candidate]] = {}
    texts: set[tuple[str, str]] = set()
    for candidate in candidates:
        counts["candidates"] += 1
        key = (candidate.prompt_id, candidate.text)
        if config.finished_only and not candidate.finished:
            counts["unfinished"] += 1
        elif not candidate.text.strip():
            counts["empty"] += 1
        elif is_unsafe(candidate, config):
            counts["unsafe"] += 1
        elif key in texts:
            counts["duplicates"] += 1
        else:
            texts.add(key)
            groups.setdefault(candidate.prompt_id, []).append(candidate)
    # Ties are broken by length, then by text, so that the order of arrival has no influence.
    ranked = {
        name: sorted(group, key=lambda c: (-c.reward, c.tokens, c.text, c.source_version))
        for name, group in sorted(groups.items())
    }
    return ranked, counts


def select(candidates: Iterable[Candidate], config: SelectConfig, seed: int) -> Selection:
    """Filter the candidates and choose by the configured rule; see `SelectConfig.rule`."""
    everything = list(candidates)
    groups, counts = eligible(everything, config)
    selection = Selection([], groups, counts)
    if config.rule == "threshold" and groups:
        selection.bar = float(np.quantile([c.reward for c in everything], config.quantile))
    rules: dict[str, Callable[[str, list[Candidate]], list[Candidate]]] = {
        "top1": lambda _, group: group[:1],
        "threshold": lambda _, group: reaching(group, selection.bar)[: config.per_prompt],
        "accept": lambda name, group: accept(
            group, config.beta, config.per_prompt, derive_seed(seed, "accept", name)
        ),
    }
    rule = rules[config.rule]
    for name, group in groups.items():
        selection.chosen += rule(name, group)
    if config.rule == "accept" and groups:
        sizes = [effective_size(group, config.beta) for group in groups.values()]
        selection.effective_size = float(np.mean(sizes))
    counts["prompts"] = len({c.prompt_id for c in everything})
    counts["prompts_without"] = counts["prompts"] - len({c.prompt_id for c in selection.chosen})
    counts["chosen"] = len(selection.chosen)
    return selection


def reaching(group: list[Candidate], bar: float) -> list[Candidate]:
    """Those with a reward ≥ `bar` (ReST's Improve step)."""
    return [candidate for candidate in group if candidate.reward >= bar]


def accept(group: list[Candidate], beta: float, count: int, seed: int) -> list[Candidate]:
    """Statistical rejection sampling (RSO, Liu et al. 2023, Algorithm 1).

    Repeated passes accept each remaining candidate with probability exp((r − r_max)/β), where r_max
    is the best remaining reward, until `count` are accepted or none remains. Accepted answers
    follow the optimal policy of a KL-regularised objective of strength β; β → 0 is top-`count`.
    """
    uniform = np.random.Generator(np.random.Philox(key=seed))
    remaining = list(group)
    accepted: list[Candidate] = []
    while remaining and len(accepted) < count:
        best = max(candidate.reward for candidate in remaining)
        rejected = []
        for candidate in remaining:
            chance = math.exp((candidate.reward - best) / beta)
            if len(accepted) < count and uniform.random() < chance:
                accepted.append(candidate)
            else:
                rejected.append(candidate)
        remaining = rejected
    return accepted


def effective_size(group: list[Candidate], beta: float) -> float:
    """(Σw)²/Σw² of the acceptance weights: 1 if one answer dominates, N if all are equally good."""
    rewards = np.array([candidate.reward for candidate in group])
    weights = np.exp((rewards - rewards.max()) / beta)
    return float(weights.sum() ** 2 / (weights**2).sum())


def random_control(selection: Selection, seed: int) -> list[Candidate]:
    """As many answers per prompt as were chosen, drawn at random from the eligible ones."""
    sizes: dict[str, int] = {}
    for candidate in selection.chosen:
        sizes[candidate.prompt_id] = sizes.get(candidate.prompt_id, 0) + 1
    picked = []
    for name, size in sizes.items():
        group = selection.eligible[name]
        order = np.random.Generator(np.random.Philox(key=derive_seed(seed, "control", name)))
        picked += [group[i] for i in sorted(order.permutation(len(group))[:size])]
    return picked
