"""Text statistics against direct, slow definitions."""

import math
from collections import Counter

import pytest

from alignment.evaluation.diversity import diversity_figures, number_of_prompts
from alignment.evaluation.textstats import (
    distinct_n,
    grams,
    repeated_share,
    self_bleu,
    words,
)


def slow_self_bleu(texts, n=4):
    tokens = [words(text) for text in texts]
    scores = []
    for index, hypothesis in enumerate(tokens):
        references = tokens[:index] + tokens[index + 1 :]
        logs = []
        for order in range(1, n + 1):
            counts = Counter(grams(hypothesis, order))
            total = sum(counts.values())
            if total == 0:
                continue
            matched = sum(
                min(count, max(Counter(grams(other, order))[gram] for other in references))
                for gram, count in counts.items()
            )
            smooth = 0 if order == 1 else 1
            value = (matched + smooth) / (total + smooth)
            logs.append(math.log(value) if value else -math.inf)
        closest = min((abs(len(r) - len(hypothesis)), len(r)) for r in references)[1]
        penalty = 1.0 if len(hypothesis) >= closest else math.exp(1 - closest / len(hypothesis))
        scores.append(penalty * math.exp(sum(logs) / len(logs)))
    return sum(scores) / len(scores)


TEXTS = [
    "the cat sat on the mat the cat sat",
    "the cat sat on the hat",
    "a dog ran over the hill, and the dog sat",
    "the dog",
    "a dog ran over the hill and the dog sat on the mat",
]


def test_self_bleu_is_what_the_definition_says():
    assert self_bleu(TEXTS) == pytest.approx(slow_self_bleu(TEXTS))


def test_self_bleu_extremes():
    assert self_bleu(["one two three four five"] * 3) == pytest.approx(1)
    assert self_bleu(["one two three", "four five six", "seven eight"]) == 0
    assert math.isnan(self_bleu(["alone", ""]))


def test_distinct_by_hand():
    # a b a b: unigrams 2 of 4; bigrams ab ba ab: 2 of 3
    assert distinct_n(["a b a b"], 1) == 0.5
    assert distinct_n(["a b a b"], 2) == pytest.approx(2 / 3)
    assert math.isnan(distinct_n(["a"], 2))


def test_repeated_by_hand():
    # seven words of "x": four 4-grams, one distinct
    assert repeated_share(["x x x x x x x"]) == 0.75
    assert repeated_share(["x x x x x x x", "a b c d e", "short"]) == 0.375


def test_diversity_is_measured_within_a_prompt():
    """W15: over one answer to each of many prompts a collapsed policy seemed the more diverse."""
    collapsed = [[f"answer {n} to question {n}"] * 25 for n in range(20)]
    # "a b" against "a c": ½ of the words, (0 + 1)/(1 + 1) of the pairs, so √(½ · ½) = ½;
    # "a b" against "c d": 0. The empty answers say nothing.
    diverse = [["a b", "a c"], ["a b", "c d"], ["", ""]]
    options = {"seed": 1, "resamplings": 100, "level": 0.95}
    each = [f"subject {n}" for n in range(20)]
    alike = diversity_figures(collapsed, each, **options)
    assert alike["self_bleu_per_prompt"] == alike["self_bleu_per_prompt_low"] == pytest.approx(1)
    found = diversity_figures(diverse, each[:3], **options)
    assert found["self_bleu_per_prompt"] == pytest.approx(0.25)
    # Both prompts ask about one subject: from one value nobody knows how far it may be off.
    assert math.isnan(
        diversity_figures(diverse, list("aab"), **options)["self_bleu_per_prompt_low"]
    )
    assert self_bleu([first for first, *_ in collapsed]) < 0.8
    assert diversity_figures([["", ""]], ["a"], **options) == {}


def test_diversity_costs_no_more_than_the_answers():
    counts = {0: 0, 1: 1, 30: 1, 400: 16, 2000: 20}
    assert {prompts: number_of_prompts(prompts) for prompts in counts} == counts
