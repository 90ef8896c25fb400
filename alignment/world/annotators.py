"""Simulated annotators: they see gold scores through noise and answer as people did in Llama 2.

Nobody is asked here; the names say so (`simulated-1` …). An annotator perceives the gap between
two answers plus logistic noise, which makes the choice Bradley–Terry distributed, prefers the
side it thinks better, grades the gap in four strengths and, for safety, labels each answer as safe
or unsafe. Now and then one does not look at all.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from alignment.config.vocabulary import Strength
from alignment.config.world import AnnotatorsConfig
from alignment.preferences.schema import REJECTED_SAFE, Comparison, comparison_id
from alignment.utils.seeds import derive_seed
from alignment.world.judge import World


def label(pairs: Sequence[Mapping[str, Any]], world: World, seed: int) -> list[Comparison]:
    """Judge pairs of answers.

    Args:
        pairs: rows of pairs.jsonl: `messages` or `conversation`, `domain`, `category` and two
            `responses` with `text`, `version`, `temperature` and perhaps `finished`.
        world: knows the gold scores.
        seed: a pair's judgement depends on it and on the pair alone, not on its neighbours.

    Returns:
        One comparison a pair, in order, without those whose chosen answer is unsafe and whose
        rejected one is safe (see `label_rows`).
    """
    rows = label_rows(pairs, world, seed)
    return [Comparison(**row) for row in rows if row["safety_bin"] != REJECTED_SAFE]


def label_rows(pairs: Sequence[Mapping[str, Any]], world: World, seed: int) -> list[dict[str, Any]]:
    """As `label`, in the native schema and complete: the bin `rejected_safe` occurs, and intake
    must count and drop it as Llama 2 did."""
    return [_judge(pair, world, seed) for pair in pairs]


def _judge(pair: Mapping[str, Any], world: World, seed: int) -> dict[str, Any]:
    config = world.config.annotators
    conversation = list(pair.get("conversation") or pair["messages"])
    left, right = pair["responses"]
    domain = pair["domain"]
    key = comparison_id(domain, conversation, left["text"], right["text"])
    rng = random.Random(derive_seed(seed, "annotation", key))
    number = rng.randrange(config.number)
    golds = [
        world.gold(conversation, side["text"], side.get("finished", True)) for side in (left, right)
    ]
    scores = [gold.safety if domain == "safety" else gold.helpfulness for gold in golds]
    gap = _perceived(scores[0] - scores[1], _noise(config, number), config.careless, rng)
    # A mistaken label comes from skimming the answer, whichever is chosen.
    unsafe = [gold.harmful != (rng.random() < config.label_errors) for gold in golds]
    chosen, rejected = (0, 1) if gap > 0 else (1, 0)
    sides = (left, right)
    return {
        "conversation": conversation,
        "chosen": sides[chosen]["text"],
        "rejected": sides[rejected]["text"],
        "strength": strength(abs(gap), config),
        "domain": domain,
        "safety_bin": _bin(unsafe[chosen], unsafe[rejected]) if domain == "safety" else None,
        "chosen_by": _producer(sides[chosen]),
        "rejected_by": _producer(sides[rejected]),
        "annotator": f"simulated-{number + 1}",
        "category": pair.get("category"),
    }


def strength(gap: float, config: AnnotatorsConfig) -> Strength:
    """The word for a perceived gap."""
    if gap >= config.significantly:
        return "significantly"
    if gap >= config.better:
        return "better"
    return "slightly" if gap >= config.slightly else "negligibly"


def _noise(config: AnnotatorsConfig, number: int) -> float:
    """Noise scale of annotator `number`: evenly spread around the mean."""
    place = 0.0 if config.number == 1 else 2 * number / (config.number - 1) - 1
    return config.noise * (1 + config.spread * place)


def _perceived(gap: float, noise: float, careless: float, rng: random.Random) -> float:
    uniform = min(max(rng.random(), 1e-12), 1 - 1e-12)
    seen = gap + noise * math.log(uniform / (1 - uniform))
    if rng.random() < careless:
        return rng.choice((-1.0, 1.0)) * abs(seen)
    return seen


def _bin(chosen_unsafe: bool, rejected_unsafe: bool) -> str:
    if chosen_unsafe:
        return "both_unsafe" if rejected_unsafe else REJECTED_SAFE
    return "chosen_safe" if rejected_unsafe else "both_safe"


def _producer(side: Mapping[str, Any]) -> dict[str, Any] | None:
    if side.get("version") is None:
        return None
    return {"version": side["version"], "temperature": side.get("temperature", 1.0)}
