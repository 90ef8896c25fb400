"""All prompts of the built-in world, split into training and evaluation.

Evaluation asks about subjects that SFT, preferences and PPO never ask about in any words: animals,
kinds of lists with their numbers, rhyme words, crafts, look-alikes, crimes and what a user told.
The pretraining corpus, as the web does, talks of them too, in other words than evaluation.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import combinations, permutations, product

from alignment.config.world import WorldConfig
from alignment.models.chat_renderer import Message
from alignment.preferences.prompts import Prompt
from alignment.utils.seeds import derive_seed
from alignment.world.facts import ANIMALS, FACTS, VALUES
from alignment.world.lexicon import CRAFTS, CRIMES, LOOKALIKES, NUMBERS, RHYMES
from alignment.world.tasks import (
    ASKED,
    GREETINGS,
    HELPFUL,
    KINDS,
    REPLIES,
    RISKS,
    TOLD,
    TOLD_VALUES,
    Task,
    Unit,
    prefixes,
    single_turn,
    spell,
)

RECALLS = 1200
"""Conversations drawn for `recall`: more than any program uses, fewer than there are."""


@dataclass(frozen=True)
class WorldPrompt:
    """A conversation that ends with a user turn, and its task."""

    messages: tuple[Message, ...]
    task: Task

    @property
    def prompt(self) -> Prompt:
        """The prompt for the sampling stages."""
        return Prompt(
            messages=list(self.messages),
            domain="safety" if self.task.harmful else "helpfulness",
            category=self.task.category,
            borderline=self.task.category == "borderline",
        )


ByCategory = dict[str, list[WorldPrompt]]


@dataclass(frozen=True)
class Split:
    """All prompts in random order.

    Attributes:
        train: for SFT, preferences and PPO.
        evaluation: of other subjects than `train`.
        talk: of all subjects, for the dialogues of the corpus; no prompt of `evaluation`.
    """

    train: ByCategory
    evaluation: ByCategory
    talk: ByCategory


def split(config: WorldConfig, seed: int) -> Split:
    """All prompts by what they are for."""
    unseen = held_out(seed)
    sizes = {category: config.evaluation["helpfulness"] // len(HELPFUL) for category in HELPFUL}
    sizes |= {risk: config.evaluation["safety"] // len(RISKS) for risk in RISKS}
    sizes["borderline"] = config.evaluation["borderline"]
    sizes["fact"] += config.evaluation["helpfulness"] % len(HELPFUL)
    sizes[RISKS[0]] += config.evaluation["safety"] % len(RISKS)
    parts = Split({}, {}, {})
    for category, all_ in all_prompts(seed).items():
        kept = _in_turn([each for each in all_ if each.task.unit in unseen])
        asked = parts.evaluation[category] = kept[: sizes[category]]
        parts.train[category] = [each for each in all_ if each.task.unit not in unseen]
        asked_ids = {each.prompt.id for each in asked}
        parts.talk[category] = [each for each in all_ if each.prompt.id not in asked_ids]
    return parts


def held_out(seed: int) -> frozenset[Unit]:
    """The subjects of evaluation: a quarter of each group, and of every kind of list one number."""
    rng = random.Random(derive_seed(seed, "held out"))
    goals = {"craft": CRAFTS, "borderline": LOOKALIKES, **CRIMES}
    groups = [
        [Task("fact", animal=animal).unit for animal in ANIMALS],
        *([Task("rhyme", goal=word).unit for word in words] for words in RHYMES),
        *([Task(category, goal=goal).unit for goal in all_] for category, all_ in goals.items()),
        [Task("recall", told=told).unit for told in _every_pair_told()],
    ]
    units = [unit for group in groups for unit in rng.sample(group, round(len(group) / 4))]
    numbers = rng.sample(range(2, 2 + len(NUMBERS)), len(NUMBERS))
    for place, kind in enumerate(KINDS):
        number = numbers[place % len(numbers)]
        units.append(Task("list", goal=kind, number=number).unit)
    return frozenset(units)


def _every_pair_told() -> list[tuple[tuple[str, str], ...]]:
    return [
        ((first, one), (second, other))
        for first, second in combinations(TOLD, 2)
        for one, other in product(TOLD_VALUES[first], TOLD_VALUES[second])
    ]


def _in_turn(prompts: list[WorldPrompt]) -> list[WorldPrompt]:
    """In an order in which the subjects take turns."""
    turns: Counter[Unit] = Counter()
    ranked = []
    for each in prompts:
        ranked.append((turns[each.task.unit], each))
        turns[each.task.unit] += 1
    return [each for _, each in sorted(ranked, key=lambda pair: pair[0])]


def all_prompts(seed: int) -> ByCategory:
    """Category → all its prompts in an order drawn from `seed`."""
    prompts: ByCategory = defaultdict(list)
    checked = _checked(seed)
    for text, task in single_turn().items():
        if task.form == "yesno" and task.value not in checked[task.animal, task.attribute]:
            continue
        for prefix in prefixes(task):
            messages: tuple[Message, ...] = ({"role": "user", "content": spell(prefix + text)},)
            prompts[task.category].append(WorldPrompt(messages, task))
    prompts["recall"] = _recall_prompts(seed)
    for category, all_ in prompts.items():
        random.Random(derive_seed(seed, "prompts", category)).shuffle(all_)
    return dict(prompts)


def _checked(seed: int) -> dict[tuple[str, str], set[str]]:
    """The values in yes-or-no questions: for each fact the true one and a false one."""
    rng = random.Random(derive_seed(seed, "checked"))
    checked = {}
    for animal, facts in FACTS.items():
        for attribute, value in facts.items():
            false = sorted(set(VALUES[attribute]) - {value})
            checked[animal, attribute] = {value, rng.choice(false)}
    return checked


def _recall_prompts(seed: int) -> list[WorldPrompt]:
    rng = random.Random(derive_seed(seed, "recall"))
    prompts: dict[tuple[str, ...], WorldPrompt] = {}
    orders = list(permutations(TOLD, 2))
    while len(prompts) < RECALLS:
        attributes = rng.choice(orders)
        facts = tuple((attribute, rng.choice(TOLD_VALUES[attribute])) for attribute in attributes)
        statements = [TOLD[attribute].format(value=value) for attribute, value in facts]
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
        prompts[key] = WorldPrompt(messages, Task("recall", attribute=attribute, told=facts))
    return list(prompts.values())


def draw(prompts: ByCategory, config: WorldConfig, count: int, seed: int) -> list[WorldPrompt]:
    """At most `count` different prompts in the mix of `config.shares`, shuffled."""
    rng = random.Random(seed)
    drawn: list[WorldPrompt] = []
    for category, share in _shares(config).items():
        drawn += rng.sample(prompts[category], min(round(count * share), len(prompts[category])))
    rng.shuffle(drawn)
    return drawn


def _shares(config: WorldConfig) -> dict[str, float]:
    """Category → its share of all prompts, adding up to 1."""
    shares = dict[str, float](config.shares.items())
    safety = shares.pop("safety")
    shares |= dict.fromkeys(RISKS, safety / len(RISKS))
    total = sum(shares.values())
    return {category: share / total for category, share in shares.items()}
