"""Selects the samples to fine-tune on: filters first, then one of three rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from alignment.config.sampling import SelectConfig
from alignment.config.vocabulary import DOMAINS, Domain
from alignment.rewards.cut_answers import floored
from alignment.utils.seeds import derive_seed


@dataclass(frozen=True)
class Candidate:
    """A scored answer.

    Attributes:
        helpfulness, safety: standardised scores of the newest reward models.
        safe_probability: the safety RM's P(safe); NaN if it has none, and no threshold applies.
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

    @property
    def domain(self) -> Domain:
        """The domain of its prompt."""
        return "safety" if self.safety_prompt else "helpfulness"


@dataclass
class Selection:
    """The chosen and the eligible candidates, with counts of those filtered out."""

    chosen: list[Candidate]
    eligible: dict[str, list[Candidate]]
    prompts: dict[Domain, set[str]]
    """Domain → ids of all prompts that had candidates."""
    counts: dict[str, int] = field(default_factory=dict)
    effective_size: float = math.nan
    """Mean over prompts of the effective number of candidates under the acceptance weights."""
    bars: dict[Domain, float] = field(default_factory=dict)
    """For `threshold`: domain → the reward a candidate had to reach."""

    @property
    def without(self) -> dict[Domain, int]:
        """Domain → prompts of which no answer was chosen; domains without prompts are left out."""
        chosen = {candidate.prompt_id for candidate in self.chosen}
        return {d: len(ids - chosen) for d, ids in self.prompts.items()}


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
    """Eligible candidates by prompt, best first, and the number removed by each filter.

    Of equal texts the best is kept: one may have been cut where another ended.
    """
    counts = {"candidates": 0, "unfinished": 0, "empty": 0, "unsafe": 0, "duplicates": 0}
    best: dict[tuple[str, str], Candidate] = {}
    for candidate in candidates:
        counts["candidates"] += 1
        key = (candidate.prompt_id, candidate.text)
        if config.finished_only and not candidate.finished:
            counts["unfinished"] += 1
        elif not candidate.text.strip():
            counts["empty"] += 1
        elif is_unsafe(candidate, config):
            counts["unsafe"] += 1
        else:
            counts["duplicates"] += key in best
            # Of equals the first: what a version wrote itself is its own.
            best[key] = min(best.get(key, candidate), candidate, key=_standing)
    groups: dict[str, list[Candidate]] = {}
    for candidate in best.values():
        groups.setdefault(candidate.prompt_id, []).append(candidate)
    # Ties are broken by length, then by text, so that the order of arrival has no influence.
    ranked = {
        name: sorted(
            group,
            key=lambda c: (-c.reward, not c.finished, c.tokens, c.text, c.source_version),
        )
        for name, group in sorted(groups.items())
    }
    return ranked, counts


def _standing(candidate: Candidate) -> tuple[bool, float]:
    return not candidate.finished, -candidate.reward


def worth(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates with the rewards at which they compete: a cut one is worth no more than the
    worst to its prompt that ended."""
    places: dict[str, list[int]] = {}
    for place, candidate in enumerate(candidates):
        places.setdefault(candidate.prompt_id, []).append(place)
    found = list(candidates)
    for group in places.values():
        finished = np.array([candidates[place].finished for place in group])
        rewards = floored(np.array([candidates[place].reward for place in group]), finished)
        for place, reward in zip(group, rewards, strict=True):
            found[place] = replace(candidates[place], reward=float(reward))
    return found


def select(candidates: Iterable[Candidate], config: SelectConfig, seed: int) -> Selection:
    """Filter the candidates and choose by the configured rule; see `SelectConfig.rule`."""
    everything = worth(list(candidates))
    groups, counts = eligible(everything, config)
    domains: list[Domain] = [d for d in DOMAINS if any(c.domain == d for c in everything)]
    prompts = {d: {c.prompt_id for c in everything if c.domain == d} for d in domains}
    selection = Selection([], groups, prompts, counts)
    if config.rule == "threshold":
        # The rewards of the two domains have different means: one bar would empty one of them.
        selection.bars = {
            d: float(np.quantile([c.reward for c in everything if c.domain == d], config.quantile))
            for d in domains
        }
    rules: dict[str, Callable[[str, list[Candidate]], list[Candidate]]] = {
        "top1": lambda _, group: group[:1],
        "threshold": lambda _, group: reaching(group, selection.bars[group[0].domain])[
            : config.per_prompt
        ],
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
    counts["prompts"] = sum(map(len, prompts.values()))
    counts["prompts_without"] = sum(selection.without.values())
    counts |= {f"prompts_without/{d}": count for d, count in selection.without.items()}
    counts["chosen"] = len(selection.chosen)
    return selection


def reaching(group: list[Candidate], bar: float) -> list[Candidate]:
    """Those with a reward ≥ `bar` (ReST's Improve step)."""
    return [candidate for candidate in group if candidate.reward >= bar]


def accept(group: list[Candidate], beta: float, count: int, seed: int) -> list[Candidate]:
    """Statistical rejection sampling (RSO, Liu et al. 2023, arXiv 2309.06657, Algorithm 1).

    Repeated passes over the candidates in the order in which they were drawn accept each with
    probability exp((r − r_max)/β), where r_max is the best reward that remained at the beginning of
    the pass, until `count` are accepted or none remains. Candidates are exchangeable, so their
    order is drawn by seed: as they come here, best first, the best `count` would win. As in the
    paper's routine, equal texts count once. β → 0 is top-`count`, β → ∞ a random pick.
    """
    uniform = np.random.Generator(np.random.Philox(key=seed))
    remaining = [group[place] for place in uniform.permutation(len(group))]
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
