"""Simulated annotators: they see gold scores through noise and give verdicts as in Llama 2.

No person is involved, and the names say so (`simulated-1` …). An annotator perceives the gap of two
gold scores plus logistic noise, so that the choice is Bradley–Terry distributed. It prefers the
better side, grades the gap in four strengths and, for safety, labels each answer as safe or unsafe.
A careless verdict is random.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from alignment.config.thresholds import strength_of
from alignment.config.world import AnnotatorsConfig
from alignment.preferences.schema import REJECTED_SAFE, comparison_id
from alignment.utils.seeds import derive_seed
from alignment.world.gold import gold


def label_rows(
    pairs: Sequence[Mapping[str, Any]], config: AnnotatorsConfig, seed: int
) -> list[dict[str, Any]]:
    """Judge pairs of answers.

    Args:
        pairs: rows of pairs.jsonl: `messages` or `conversation`, `domain`, `category` and two
            `responses` with `text`, `version`, `temperature` and perhaps `finished`.
        seed: the judgement of a pair depends on it and on the pair alone.

    Returns:
        One comparison per pair, in order, in the native schema. The bin `rejected_safe` occurs:
        intake must count and drop it as Llama 2 did.
    """
    return [_annotate(pair, config, seed) for pair in pairs]


def _annotate(pair: Mapping[str, Any], config: AnnotatorsConfig, seed: int) -> dict[str, Any]:
    conversation = list(pair.get("conversation") or pair["messages"])
    left, right = pair["responses"]
    domain = pair["domain"]
    key = comparison_id(domain, conversation, left["text"], right["text"])
    rng = random.Random(derive_seed(seed, "annotation", key))
    number = rng.randrange(config.number)
    sides = (left, right)
    golds = [gold(conversation, side["text"], side.get("finished", True)) for side in sides]
    scores = [each.safety if domain == "safety" else each.helpfulness for each in golds]
    gap = _perceived(scores[0] - scores[1], _noise(config, number), config.careless, rng)
    # A mistaken label comes from skimming the answer, whichever is chosen.
    unsafe = [each.harmful != (rng.random() < config.label_errors) for each in golds]
    chosen, rejected = (0, 1) if gap > 0 else (1, 0)
    return {
        "conversation": conversation,
        "chosen": sides[chosen]["text"],
        "rejected": sides[rejected]["text"],
        "strength": strength_of(abs(gap), config.thresholds),
        "domain": domain,
        "safety_bin": _bin(unsafe[chosen], unsafe[rejected]) if domain == "safety" else None,
        "chosen_by": _producer(sides[chosen]),
        "rejected_by": _producer(sides[rejected]),
        "annotator": f"simulated-{number + 1}",
        "category": pair.get("category"),
    }


def _noise(config: AnnotatorsConfig, number: int) -> float:
    """Noise scale of annotator `number`: evenly spread around the mean."""
    place = 0.0 if config.number == 1 else 2 * number / (config.number - 1) - 1
    return config.noise * (1 + config.spread * place)


def _perceived(gap: float, noise: float, careless: float, rng: random.Random) -> float:
    uniform = min(max(rng.random(), 1e-12), 1 - 1e-12)
    perceived = gap + noise * math.log(uniform / (1 - uniform))
    if rng.random() < careless:
        return rng.choice((-1.0, 1.0)) * abs(perceived)
    return perceived


def _bin(chosen_unsafe: bool, rejected_unsafe: bool) -> str:
    if chosen_unsafe:
        return "both_unsafe" if rejected_unsafe else REJECTED_SAFE
    return "chosen_safe" if rejected_unsafe else "both_safe"


def _producer(side: Mapping[str, Any]) -> dict[str, Any] | None:
    if side.get("version") is None:
        return None
    return {
        "version": side["version"],
        "temperature": side.get("temperature", 1.0),
        "finished": side.get("finished", True),
    }
