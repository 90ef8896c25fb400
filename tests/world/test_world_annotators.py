"""Simulated annotators: near gold where the gap is clear, near chance where it is negligible."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from alignment.config.thresholds import Bound, strength_of
from alignment.config.vocabulary import STRENGTHS
from alignment.config.world import AnnotatorsConfig
from alignment.preferences.schema import Comparison
from alignment.world.annotators import label_rows
from alignment.world.demonstrations import answer, quality
from alignment.world.gold import gold
from alignment.world.prompts import all_prompts
from alignment.world.tasks import RISKS

ANNOTATORS = AnnotatorsConfig()


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, Any]]:
    rng = random.Random(1)
    asked = [each for all_ in all_prompts(1).values() for each in all_[:70]]
    found = []
    for each in asked * 2:
        texts = [answer(each.task, quality(rng), rng) for _ in range(2)]
        if texts[0] != texts[1]:
            found.append(
                {
                    "conversation": list(each.messages),
                    "domain": each.task.domain,
                    "category": each.task.category,
                    "responses": [
                        {"text": texts[0], "version": "sft", "temperature": 1.0},
                        {"text": texts[1], "version": "rlhf-v1", "temperature": 0.7},
                    ],
                }
            )
    return found


def agreements(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Strength → share of comparisons whose gold order is that of the annotator."""
    agreed: dict[str, list[bool]] = {}
    for row in rows:
        chosen, rejected = (gold(row["conversation"], row[side]) for side in ("chosen", "rejected"))
        axis = "safety" if row["domain"] == "safety" else "helpfulness"
        gap = getattr(chosen, axis) - getattr(rejected, axis)
        if gap != 0:
            agreed.setdefault(row["strength"], []).append(gap > 0)
    return {key: sum(values) / len(values) for key, values in agreed.items()}


def test_agreement_with_gold_falls_with_the_strength(pairs: list[dict[str, Any]]) -> None:
    agreed = agreements(label_rows(pairs, ANNOTATORS, 0))
    assert 0.86 <= agreed["significantly"] <= 0.98
    assert 0.5 <= agreed["negligibly"] <= 0.65
    in_order = [agreed[key] for key in STRENGTHS]
    assert in_order == sorted(in_order, reverse=True)


def test_strengths_are_mixed_as_among_people(pairs: list[dict[str, Any]]) -> None:
    rows = label_rows(pairs, ANNOTATORS, 0)
    counts = Counter(row["strength"] for row in rows)
    shares = {key: counts[key] / len(rows) for key in STRENGTHS}
    assert 0.12 <= shares["significantly"] <= 0.3
    assert 0.2 <= shares["negligibly"] <= 0.4


def test_bins_say_what_is_safe_and_the_fourth_is_left_to_intake(
    pairs: list[dict[str, Any]],
) -> None:
    rows = label_rows(pairs, ANNOTATORS, 0)
    bins = Counter(row["safety_bin"] for row in rows)
    assert bins[None] == sum(pair["domain"] == "helpfulness" for pair in pairs)
    for name in ("chosen_safe", "both_safe", "both_unsafe", "rejected_safe"):
        assert bins[name] > 0
    kept = [Comparison(**row) for row in rows if row["safety_bin"] != "rejected_safe"]
    assert len(kept) == len(rows) - bins["rejected_safe"]
    right = [
        gold(row["conversation"], row["chosen"]).harmful == (row["safety_bin"] != "both_safe")
        for row in rows
        if row["safety_bin"] in ("both_safe", "both_unsafe")
    ]
    assert sum(right) / len(right) > 0.9


def test_a_judgement_depends_on_its_pair_alone(pairs: list[dict[str, Any]]) -> None:
    whole = label_rows(pairs, ANNOTATORS, 3)
    assert label_rows(pairs[40:60], ANNOTATORS, 3) == whole[40:60]
    assert label_rows(pairs, ANNOTATORS, 4) != whole


def test_provenance_travels_with_the_answer(pairs: list[dict[str, Any]]) -> None:
    for pair, row in zip(pairs, label_rows(pairs, ANNOTATORS, 0), strict=True):
        by_text = {side["text"]: side["version"] for side in pair["responses"]}
        assert row["chosen_by"]["version"] == by_text[row["chosen"]]
        assert row["rejected_by"]["version"] == by_text[row["rejected"]]
        assert row["annotator"].startswith("simulated-")


def test_without_noise_an_annotator_is_always_right(pairs: list[dict[str, Any]]) -> None:
    config = AnnotatorsConfig(number=1, noise=0, careless=0, label_errors=0)
    rows = label_rows(pairs, config, 0)
    assert set(agreements(rows).values()) == {1.0}
    assert not [row for row in rows if row["safety_bin"] == "rejected_safe"]


def test_strength_thresholds() -> None:
    bounds: dict[Bound, float] = {"significantly": 0.5, "better": 0.3, "slightly": 0.1}
    gaps = (0.5, 0.49, 0.3, 0.29, 0.1, 0.09, 0.0)
    words = [strength_of(gap, bounds) for gap in gaps]
    assert words == [
        "significantly",
        "better",
        "better",
        "slightly",
        "slightly",
        "negligibly",
        "negligibly",
    ]
    assert set(words) <= {*STRENGTHS}
    assert len(RISKS) >= 4
