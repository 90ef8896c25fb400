"""Prompts of the built-in world: every text it can ask, split into training and evaluation."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from itertools import permutations

from alignment.config.world import WorldConfig
from alignment.models.chat_renderer import Message
from alignment.preferences.prompts import Prompt
from alignment.utils.seeds import derive_seed
from alignment.world.facts import FACTS, VALUES
from alignment.world.tasks import (
    ASKED,
    GREETINGS,
    HELPFUL,
    REPLIES,
    RISKS,
    TOLD,
    TOLD_VALUES,
    Task,
    prefixes,
    single_turn,
    spell,
)

RECALLS = 1200
"""Conversations drawn for `recall`: far more than a program asks, far fewer than there are."""


@dataclass(frozen=True)
class Asked:
    """A conversation that ends with a user turn, and what it asks."""

    messages: tuple[Message, ...]
    task: Task

    @property
    def prompt(self) -> Prompt:
        """As the sampling stages know it."""
        borderline = self.task.category == "borderline"
        return Prompt(
            messages=list(self.messages),
            domain="safety" if self.task.harmful else "helpfulness",
            category=self.task.category,
            borderline=borderline,
        )


@dataclass(frozen=True)
class Split:
    """All prompts by category, in random order: those for training, those kept for evaluation."""

    train: dict[str, list[Asked]]
    evaluation: dict[str, list[Asked]]


def split(config: WorldConfig, seed: int) -> Split:
    """Every prompt of the world; the evaluation ones share no text with the training ones."""
    asked = everything(seed)
    wanted = {category: config.evaluation_helpfulness // len(HELPFUL) for category in HELPFUL}
    wanted |= {risk: config.evaluation_safety // len(RISKS) for risk in RISKS}
    wanted["borderline"] = config.evaluation_borderline
    wanted["fact"] += config.evaluation_helpfulness % len(HELPFUL)
    wanted[RISKS[0]] += config.evaluation_safety % len(RISKS)
    train, evaluation = {}, {}
    for category, all_ in asked.items():
        # At least half of every category stays for training, however much evaluation asks for.
        count = min(wanted[category], len(all_) // 2)
        evaluation[category], train[category] = all_[:count], all_[count:]
    return Split(train, evaluation)


def everything(seed: int) -> dict[str, list[Asked]]:
    """Category → all its prompts in an order drawn from `seed`."""
    asked: dict[str, list[Asked]] = defaultdict(list)
    checked = _checked(seed)
    for text, task in single_turn().items():
        if task.form == "yesno" and task.value not in checked[task.animal, task.attribute]:
            continue
        for prefix in prefixes(task):
            messages: tuple[Message, ...] = ({"role": "user", "content": spell(prefix + text)},)
            asked[task.category].append(Asked(messages, task))
    asked["recall"] = _recalls(seed)
    for category, all_ in asked.items():
        random.Random(derive_seed(seed, "prompts", category)).shuffle(all_)
    return dict(asked)


def _checked(seed: int) -> dict[tuple[str, str], set[str]]:
    """The values that yes-or-no questions ask about: the true one and one false one each."""
    rng = random.Random(derive_seed(seed, "checked"))
    checked = {}
    for animal, facts in FACTS.items():
        for attribute, value in facts.items():
            false = sorted(set(VALUES[attribute]) - {value})
            checked[animal, attribute] = {value, rng.choice(false)}
    return checked


def _recalls(seed: int) -> list[Asked]:
    rng = random.Random(derive_seed(seed, "recall"))
    found: dict[tuple[str, ...], Asked] = {}
    orders = list(permutations(TOLD, 2))
    while len(found) < RECALLS:
        attributes = rng.choice(orders)
        told = tuple((attribute, rng.choice(TOLD_VALUES[attribute])) for attribute in attributes)
        statements = [TOLD[attribute].format(value=value) for attribute, value in told]
        if rng.random() < 0.5:
            turns = [f"{statements[0]} and {statements[1]}.", rng.choice(REPLIES)]
        else:
            turns = [f"{statements[0]}.", rng.choice(REPLIES)]
            turns += [f"{statements[1]}.", rng.choice(REPLIES)]
        attribute = rng.choice(attributes)
        greeting = rng.choice(GREETINGS) if rng.random() < 0.3 else ""
        turns.append(greeting + rng.choice(ASKED[attribute]))
        messages = tuple(
            Message(role="assistant" if index % 2 else "user", content=spell(turn))
            for index, turn in enumerate(turns)
        )
        key = tuple(message["content"] for message in messages)
        found[key] = Asked(messages, Task("recall", attribute=attribute, told=told))
    return list(found.values())


def draw(asked: dict[str, list[Asked]], config: WorldConfig, count: int, seed: int) -> list[Asked]:
    """At most `count` different prompts in the mix of `config.shares`, shuffled."""
    rng = random.Random(seed)
    drawn: list[Asked] = []
    for category, share in _shares(config).items():
        drawn += rng.sample(asked[category], min(round(count * share), len(asked[category])))
    rng.shuffle(drawn)
    return drawn


def _shares(config: WorldConfig) -> dict[str, float]:
    """Category → its share of all prompts, adding up to 1."""
    shares = config.shares.model_dump()
    safety = shares.pop("safety")
    shares |= dict.fromkeys(RISKS, safety / len(RISKS))
    total = sum(shares.values())
    return {category: share / total for category, share in shares.items()}
