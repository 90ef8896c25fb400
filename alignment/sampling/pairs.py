"""Pairs of answers for annotation: which prompts, which policy and temperature on each side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignment.config.sampling import CollectConfig
from alignment.config.vocabulary import DOMAINS
from alignment.inference.types import Sample
from alignment.preferences.prompts import Prompt
from alignment.preferences.schema import text_digest
from alignment.utils.seeds import derive_seed

TRIES = 2
"""Answers drawn for each side; the pair uses the first ones that ended with EOS."""


@dataclass(frozen=True)
class PlannedAnswer:
    """An answer still to be sampled."""

    version: str
    temperature: float
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class PlannedPair:
    """A pair whose answers are still to be sampled."""

    prompt: Prompt
    sides: tuple[PlannedAnswer, PlannedAnswer]


def plan_pairs(
    pool: Sequence[Prompt], versions: tuple[str, str], config: CollectConfig, seed: int
) -> list[PlannedPair]:
    """`config.pairs` pairs, `safety_share` of them on safety prompts.

    Args:
        versions: the versions that answer; the same name twice if there is no earlier policy.
    """
    by_domain: dict[str, list[Prompt]] = {
        domain: sorted(
            (prompt for prompt in pool if prompt.domain == domain),
            key=lambda prompt: derive_seed(seed, "pair prompt", prompt.id),
        )
        for domain in DOMAINS
    }
    safety = round(config.pairs * config.safety_share)
    if not by_domain["safety"]:
        safety = 0
    elif not by_domain["helpfulness"]:
        safety = config.pairs
    planned = []
    for domain, count in (("helpfulness", config.pairs - safety), ("safety", safety)):
        prompts = by_domain[domain]
        if not prompts:
            continue
        for number in range(count):
            # With more pairs than prompts, prompts are used again with other seeds.
            prompt = prompts[number % len(prompts)]
            planned.append(
                PlannedPair(prompt, _sides(prompt, number // len(prompts), versions, config, seed))
            )
    return planned


def _sides(
    prompt: Prompt, turn: int, versions: tuple[str, str], config: CollectConfig, seed: int
) -> tuple[PlannedAnswer, PlannedAnswer]:
    random = np.random.Generator(np.random.Philox(derive_seed(seed, "sides", prompt.id, turn)))
    grid = config.temperatures
    first, second = random.permutation(len(grid))[:2] if len(grid) > 1 else (0, 0)
    sides = [
        PlannedAnswer(
            version,
            grid[place],
            tuple(derive_seed(seed, name, prompt.id, turn, attempt) for attempt in range(TRIES)),
        )
        for name, version, place in zip("ab", versions, (first, second), strict=True)
    ]
    return sides[0], sides[1]


def make_pair(
    planned: PlannedPair, drawn: tuple[Sequence[Sample], Sequence[Sample]], seed: int
) -> dict[str, Any] | None:
    """A row of pairs.jsonl; None if no two answers differ or all are empty.

    Answers that ended with EOS are preferred: people should not judge truncated answers. The order
    in the row is random, so that it reveals nothing about the versions.
    """
    options = [
        (not (left.finished and right.finished), i + j, left, right)
        for i, left in enumerate(drawn[0])
        for j, right in enumerate(drawn[1])
        if left.text and right.text and left.text != right.text
    ]
    if not options:
        return None
    _, _, *pair = min(options, key=lambda option: option[:2])
    texts: list[Sample] = pair
    responses: list[dict[str, Any]] = [
        {
            "text": sample.text,
            "version": side.version,
            "temperature": side.temperature,
            "finished": sample.finished,
        }
        for sample, side in zip(texts, planned.sides, strict=True)
    ]
    prompt = planned.prompt
    spoken = [part for m in prompt.messages for part in (m["role"], m["content"])]
    name = text_digest([prompt.domain, *spoken, *sorted(one.text for one in texts)])[:16]
    if derive_seed(seed, "order", name) % 2:
        responses.reverse()
    return {
        "id": name,
        "conversation": [dict(message) for message in prompt.messages],
        "responses": responses,
        "domain": prompt.domain,
        "category": prompt.category,
    }
