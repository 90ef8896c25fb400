"""Demonstrations for SFT: answers by writers of uneven quality.

Each answer has a quality q in [0, 1]: a higher q makes good parts likelier and mistakes rarer. The
demonstrations are mediocre on purpose, so that RLHF has something to gain.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from alignment.world.facts import ATTRIBUTES, VALUES, Fact, truth
from alignment.world.lexicon import (
    ALTERNATIVES,
    CLOSINGS,
    CRAFTS,
    CRIME_STEPS,
    FILLERS,
    FIRST_LINES,
    LOOKALIKES,
    MARKERS,
    NUMBERS,
    OPENINGS,
    REASONS,
    REFUSALS,
    RHYMES,
    RUDE,
    SECOND_LINES,
    SORRY,
    TIPS,
)
from alignment.world.sentences import RECALLED
from alignment.world.tasks import KINDS, RISKS, TOLD_VALUES, Task, spell


def quality(rng: random.Random) -> float:
    """Quality of one writer on one day."""
    return rng.betavariate(2.0, 1.4)


def answer(task: Task, q: float, rng: random.Random) -> str:
    """An answer of quality `q` to a task."""
    if task.harmful:
        return _join(_harmful(task, q, rng))
    if rng.random() < _WRONG_REFUSAL.get(task.category, 0.03) * (1.4 - 0.8 * q):
        return _join(_refusal(rng.choice(RISKS), 0.5 * q, rng))
    if task.form in ("word", "capitals"):
        return _formed(task, q, rng)
    body = _BODY[task.category](task, q, rng)
    return _join(_polite(body, q, rng))


_WRONG_REFUSAL = {"borderline": 0.15}


def _likely(rng: random.Random, low: float, high: float, q: float) -> bool:
    """True with a probability that rises from `low` (q = 0) to `high` (q = 1)."""
    return rng.random() < low + (high - low) * q


def _join(sentences: list[str]) -> str:
    return spell(" ".join(f"{sentence}." for sentence in sentences))


def _polite(body: list[str], q: float, rng: random.Random) -> list[str]:
    sentences = list(body)
    if _likely(rng, 0.3, 0.05, q):
        sentences.insert(rng.randrange(len(sentences) + 1), rng.choice(FILLERS))
    if _likely(rng, 0.1, 0.0, q):
        sentences.append(rng.choice(RUDE))
    if _likely(rng, 0.15, 0.02, q):
        sentences.append(rng.choice(body))
    if _likely(rng, 0.25, 0.65, q):
        sentences.insert(0, rng.choice(list(OPENINGS)))
    if _likely(rng, 0.15, 0.5, q):
        sentences.append(rng.choice(list(CLOSINGS)))
    return sentences


def _claim(animal: str, attribute: str, q: float, rng: random.Random) -> Fact:
    if _likely(rng, 0.5, 0.97, q):
        return truth(animal, attribute)
    return Fact(animal, attribute, rng.choice(VALUES[attribute]))


def _details(task: Task, q: float, rng: random.Random) -> list[str]:
    others = [attribute for attribute in ATTRIBUTES if attribute != task.attribute]
    rng.shuffle(others)
    count = sum(_likely(rng, 0.05, 0.5, q) for _ in range(2))
    return [_claim(task.animal, attribute, q, rng).sentence for attribute in others[:count]]


def _fact(task: Task, q: float, rng: random.Random) -> list[str]:
    claim = _claim(task.animal, task.attribute, q, rng)
    if _likely(rng, 0.3, 0.03, q):
        return [claim.value]
    return [claim.sentence, *_details(task, q, rng)]


def _list(task: Task, q: float, rng: random.Random) -> list[str]:
    right = _likely(rng, 0.5, 0.95, q)
    count = task.number if right else min(6, max(2, task.number + rng.choice((-2, -1, 1, 2))))
    items = rng.sample(KINDS[task.goal], count)
    for index in range(count):
        if _likely(rng, 0.12, 0.0, q):
            items[index] = rng.choice([*items, *rng.choice(list(KINDS.values()))])
    text = ", ".join(items[:-1]) + f" and {items[-1]}"
    if _likely(rng, 0.25, 0.75, q):
        word = NUMBERS[task.number - 2] if _likely(rng, 0.6, 0.98, q) else rng.choice(NUMBERS)
        text = f"here are {word} {task.goal}: {text}"
    return [text]


def _rhyme(task: Task, q: float, rng: random.Random) -> list[str]:
    group = next(words for words in RHYMES if task.goal in words)
    everything = [word for words in RHYMES for word in words]
    first = task.goal if _likely(rng, 0.75, 0.98, q) else rng.choice(everything)
    right = _likely(rng, 0.5, 0.97, q)
    second = rng.choice([w for w in group if w != first] if right else everything)
    couplets = [_couplet(first, second, rng)]
    if _likely(rng, 0.05, 0.4, q):
        third, fourth = rng.sample(group if right else everything, 2)
        couplets.append(_couplet(third, fourth, rng))
    return couplets


def _couplet(first: str, second: str, rng: random.Random) -> str:
    return f"{rng.choice(FIRST_LINES)} {first}, {rng.choice(SECOND_LINES)} {second}"


def _yes_or_no(task: Task, q: float, rng: random.Random) -> list[str]:
    claim = _claim(task.animal, task.attribute, q, rng)
    if _likely(rng, 0.3, 0.02, q):
        return [claim.sentence]
    sentences = ["yes" if claim.value == task.value else "no"]
    if _likely(rng, 0.2, 0.7, q):
        sentences.append(claim.sentence)
        sentences += _details(task, q, rng)[:1]
    return sentences


def _formed(task: Task, q: float, rng: random.Random) -> str:
    claim = _claim(task.animal, task.attribute, q, rng)
    if _likely(rng, 0.5, 0.1, q):
        return _join(_polite([claim.sentence], q, rng))
    if task.form == "word":
        return spell(f"{claim.value}.")
    value = claim.value.upper() if _likely(rng, 0.5, 0.98, q) else claim.value
    return spell(f"{value}.")


def _recall(task: Task, q: float, rng: random.Random) -> list[str]:
    facts = dict(task.told)

    def repeat(attribute: str) -> str:
        right = _likely(rng, 0.6, 0.99, q)
        value = facts[attribute] if right else rng.choice(TOLD_VALUES[attribute])
        return RECALLED[attribute].format(value=value)

    if _likely(rng, 0.25, 0.02, q):
        return [facts[task.attribute]]
    sentences = [repeat(task.attribute)]
    others = [attribute for attribute in facts if attribute != task.attribute]
    if others and _likely(rng, 0.05, 0.5, q):
        sentences.append(repeat(others[0]))
    return sentences


def _craft(task: Task, q: float, rng: random.Random) -> list[str]:
    goals = {**CRAFTS, **LOOKALIKES}
    steps = list(enumerate(goals[task.goal]))
    if _likely(rng, 0.2, 0.02, q):
        rng.shuffle(steps)
    # A lazy writer stops early.
    chosen = steps[: 1 + sum(_likely(rng, 0.35, 0.95, q) for _ in steps[1:])]
    sentences = []
    for index, text in chosen:
        if _likely(rng, 0.15, 0.0, q):
            text = rng.choice(goals[rng.choice(list(goals))])
        marker = MARKERS[index] if _likely(rng, 0.5, 0.97, q) else rng.choice(MARKERS)
        sentences.append(f"{marker} {text}")
    if _likely(rng, 0.05, 0.35, q):
        sentences.append(rng.choice(TIPS))
    return sentences


def _harmful(task: Task, q: float, rng: random.Random) -> list[str]:
    if _likely(rng, 0.75, 0.25, q):
        steps = CRIME_STEPS[task.category]
        chosen = sorted(rng.sample(range(len(steps)), rng.choice((1, 2, 2, 3))))
        body = [f"{MARKERS[min(place, 2)]} {steps[index]}" for place, index in enumerate(chosen)]
        if rng.random() < 0.08:
            body.insert(0, rng.choice(REFUSALS))
        return _polite(body, 0.3, rng)
    return _refusal(task.category, q, rng)


def _refusal(risk: str, q: float, rng: random.Random) -> list[str]:
    sentences = [rng.choice(REFUSALS)] if _likely(rng, 0.75, 0.97, q) else []
    if _likely(rng, 0.1, 0.6, q):
        sentences.insert(0, rng.choice(SORRY))
    if _likely(rng, 0.15, 0.65, q) or not sentences:
        sentences.append(REASONS[risk if _likely(rng, 0.5, 0.97, q) else rng.choice(RISKS)])
    if _likely(rng, 0.1, 0.5, q):
        sentences.append(ALTERNATIVES[risk if _likely(rng, 0.5, 0.97, q) else rng.choice(RISKS)])
    if _likely(rng, 0.25, 0.0, q):
        sentences.append(rng.choice(RUDE + FILLERS))
    if _likely(rng, 0.0, 0.2, q):
        sentences.append(rng.choice(list(CLOSINGS)))
    return sentences


_BODY: dict[str, Callable[[Task, float, random.Random], list[str]]] = {
    "fact": _fact,
    "list": _list,
    "rhyme": _rhyme,
    "format": _yes_or_no,
    "recall": _recall,
    "craft": _craft,
    "borderline": _craft,
}
