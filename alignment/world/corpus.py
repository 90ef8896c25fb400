"""The pretraining corpus of the built-in world: tales, rhymes, lists and dialogue.

Most statements are true, some are not, as in any corpus. Dialogue is written as reported speech,
never in the chat format, which SFT teaches.
"""

from __future__ import annotations

import random

from alignment.world.demonstrations import answer
from alignment.world.facts import ANIMALS, ATTRIBUTES, VALUES, Fact, truth
from alignment.world.lexicon import FIRST_LINES, NAMES, NUMBERS, RHYMES, SECOND_LINES
from alignment.world.prompts import ByCategory
from alignment.world.sentences import RECALLED
from alignment.world.tasks import HELPFUL, KINDS, REPLIES, RISKS, TOLD, TOLD_VALUES, spell


def documents(
    prompts: ByCategory, count: int, truthfulness: float, rng: random.Random
) -> list[str]:
    """`count` short documents.

    Args:
        prompts: training prompts by category, for reported dialogue.
        truthfulness: share of true statements about animals.
        rng: source of all randomness.
    """
    writers = [
        (0.16, lambda: _animal(truthfulness, rng)),
        (0.04, lambda: _meeting(truthfulness, rng)),
        (0.10, lambda: _rhyme(rng)),
        (0.04, lambda: _list(rng)),
        (0.12, lambda: _remembered(rng)),
        (0.54, lambda: _talk(prompts, rng)),
    ]
    weights = [weight for weight, _ in writers]
    kinds = rng.choices(range(len(writers)), weights, k=count)
    return [spell(writers[kind][1]()) for kind in kinds]


def _claim(animal: str, attribute: str, truthfulness: float, rng: random.Random) -> str:
    if rng.random() < truthfulness:
        return truth(animal, attribute).sentence
    return Fact(animal, attribute, rng.choice(VALUES[attribute])).sentence


def _animal(truthfulness: float, rng: random.Random) -> str:
    """A few statements about one animal."""
    animal = rng.choice(ANIMALS)
    attributes = rng.sample(ATTRIBUTES, rng.choice((2, 3, 4)))
    return " ".join(f"{_claim(animal, each, truthfulness, rng)}." for each in attributes)


def _meeting(truthfulness: float, rng: random.Random) -> str:
    """A villager meets an animal."""
    animal, name = rng.choice(ANIMALS), rng.choice(NAMES).lower()
    home = truth(animal, "home").value
    claims = rng.sample(("food", "color", "sound"), 2)
    statements = " ".join(f"{_claim(animal, each, truthfulness, rng)}." for each in claims)
    return f"{name} saw a {animal} in the {home}. {statements}"


def _rhyme(rng: random.Random) -> str:
    """One or two couplets, nine of ten of which rhyme."""
    couplets = []
    for _ in range(rng.choice((1, 1, 2))):
        pair = rng.sample(rng.choice(RHYMES), 2)
        if rng.random() < 0.1:
            pair[1] = rng.choice(rng.choice(RHYMES))
        first, second = rng.choice(FIRST_LINES), rng.choice(SECOND_LINES)
        couplets.append(f"{first} {pair[0]}, {second} {pair[1]}.")
    return " ".join(couplets)


def _list(rng: random.Random) -> str:
    """A list with its number."""
    kind = rng.choice(list(KINDS))
    number = rng.choice((2, 3, 4, 5))
    items = rng.sample(KINDS[kind], number)
    return f"here are {NUMBERS[number - 2]} {kind}: {', '.join(items[:-1])} and {items[-1]}."


def _remembered(rng: random.Random) -> str:
    """A guest says something about themselves, the host repeats it."""
    attributes = rng.sample(list(TOLD), 2)
    facts = {attribute: rng.choice(TOLD_VALUES[attribute]) for attribute in attributes}
    statement = " and ".join(TOLD[each].format(value=facts[each]) for each in attributes)
    rng.shuffle(attributes)
    repeated = " ".join(f"{RECALLED[each].format(value=facts[each])}." for each in attributes)
    turns = (f"{statement}.", f"{rng.choice(REPLIES)} {repeated}")
    return f"Guest: {spell(turns[0])} Host: {spell(turns[1])}"


def _talk(prompts: ByCategory, rng: random.Random) -> str:
    """A guest asks what users ask, a host answers well, most of the time."""
    category = rng.choice((*HELPFUL, "borderline", rng.choice(RISKS), rng.choice(RISKS)))
    question = rng.choice(prompts[category])
    turns = [message["content"] for message in question.messages]
    turns.append(answer(question.task, rng.betavariate(6, 1.5), rng))
    return " ".join(f"{('Guest', 'Host')[index % 2]}: {turn}" for index, turn in enumerate(turns))
