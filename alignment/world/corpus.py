"""The pretraining corpus of the built-in world: tales, instructions, rhymes, lists and dialogue.

Most statements are true, some are not, as in any corpus. Dialogue is written as reported speech,
never in the chat format, which SFT teaches. It is about everything, also about what SFT never asks
and evaluation does: so small a model cannot answer questions about what it only ever read tales of,
and alignment would have nothing to bring out.
"""

from __future__ import annotations

import random

from alignment.world.demonstrations import answer
from alignment.world.facts import ANIMALS, ATTRIBUTES, VALUES, Fact, truth
from alignment.world.lexicon import (
    ALTERNATIVES,
    COLORS,
    CRAFTS,
    CRIMES,
    FIRST_LINES,
    FRUITS,
    LOOKALIKES,
    MARKERS,
    NAMES,
    NUMBERS,
    REASONS,
    RHYMES,
    SECOND_LINES,
    TIPS,
)
from alignment.world.prompts import ByCategory
from alignment.world.sentences import RECALLED
from alignment.world.tasks import (
    HELPFUL,
    KINDS,
    REPLIES,
    RISKS,
    TOLD,
    TOLD_VALUES,
    spell,
)


def documents(
    prompts: ByCategory,
    count: int,
    truthfulness: float,
    rng: random.Random,
) -> list[str]:
    """`count` short documents.

    Args:
        prompts: what guests ask, by category.
        truthfulness: share of true statements about animals.
        rng: source of all randomness.
    """
    writers = [
        (0.12, lambda: _animal(truthfulness, rng)),
        (0.06, lambda: _entry(truthfulness, rng)),
        (0.03, lambda: _meeting(truthfulness, rng)),
        (0.07, lambda: _rhyme(rng)),
        (0.04, lambda: _list(rng)),
        (0.08, lambda: _how_to(rng)),
        (0.06, lambda: _crime(rng)),
        (0.08, lambda: _echo(rng)),
        (0.10, lambda: _remembered(rng)),
        (0.36, lambda: _talk(prompts, rng)),
    ]
    weights = [weight for weight, _ in writers]
    kinds = rng.choices(range(len(writers)), weights, k=count)
    return [spell(writers[kind][1]()) for kind in kinds]


def _claimed(animal: str, attribute: str, truthfulness: float, rng: random.Random) -> Fact:
    if rng.random() < truthfulness:
        return truth(animal, attribute)
    return Fact(animal, attribute, rng.choice(VALUES[attribute]))


def _claim(animal: str, attribute: str, truthfulness: float, rng: random.Random) -> str:
    return _claimed(animal, attribute, truthfulness, rng).sentence


def _animal(truthfulness: float, rng: random.Random) -> str:
    """A few statements about one animal."""
    animal = rng.choice(ANIMALS)
    attributes = rng.sample(ATTRIBUTES, rng.choice((2, 3, 4)))
    return " ".join(f"{_claim(animal, each, truthfulness, rng)}." for each in attributes)


def _entry(truthfulness: float, rng: random.Random) -> str:
    """An entry of a book of animals."""
    animal = rng.choice(ANIMALS)
    attributes = rng.sample(ATTRIBUTES, rng.choice((2, 3, 4)))
    claims = {each: _claimed(animal, each, truthfulness, rng).value for each in attributes}
    said = " ".join(f"{each}: {value}." for each, value in claims.items())
    # Old books print in capitals, which spelling leaves alone.
    return f"the {animal}. {said.upper() if rng.random() < 0.3 else said}"


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


def _how_to(rng: random.Random) -> str:
    """How a craft, or what sounds like a crime, is done."""
    goals = {**CRAFTS, **LOOKALIKES}
    goal = rng.choice(list(goals))
    steps = " ".join(f"{mark} {step}." for mark, step in zip(MARKERS, goals[goal], strict=True))
    told = rng.choice((f"{rng.choice(NAMES).lower()} wants to {goal}.", f"this is how to {goal}."))
    return f"{told} {steps}" + (f" {rng.choice(TIPS)}." if rng.random() < 0.2 else "")


def _crime(rng: random.Random) -> str:
    """What speaks against a crime."""
    risk = rng.choice(RISKS)
    crime = rng.choice(CRIMES[risk])
    told = rng.choice((f"a thief wants to {crime}.", f"do not {crime}."))
    friend = f" a friend says: {ALTERNATIVES[risk]}." if rng.random() < 0.5 else ""
    return f"{told} {REASONS[risk]}.{friend}"


def _echo(rng: random.Random) -> str:
    """One calls a few words into the valley, another calls them back: how a model learns to look
    back at what was said."""
    one, other = rng.sample(NAMES, 2)
    words = (*NAMES, *COLORS, *ANIMALS, *NUMBERS, *KINDS, *FRUITS, *(w for g in RHYMES for w in g))
    called = " ".join(rng.sample([word.lower() for word in words], rng.choice((3, 4, 5, 6))))
    return f"{one.lower()} calls: {called}. {other.lower()} calls: {called}."


def _remembered(rng: random.Random) -> str:
    """A guest says something about themselves, the host repeats it."""
    attributes = rng.sample(list(TOLD), rng.choice((2, 3, 4)))
    facts = {attribute: rng.choice(TOLD_VALUES[attribute]) for attribute in attributes}
    statement = " and ".join(TOLD[each].format(value=facts[each]) for each in attributes)
    rng.shuffle(attributes)
    repeated = " ".join(f"{RECALLED[each].format(value=facts[each])}." for each in attributes)
    turns = (f"{statement}.", f"{rng.choice(REPLIES)} {repeated}")
    return f"Guest: {spell(turns[0])} Host: {spell(turns[1])}"


def _talk(prompts: ByCategory, rng: random.Random) -> str:
    """A guest asks what users ask, a host answers well, most of the time."""
    category = rng.choice((*HELPFUL, *2 * ("borderline",), *rng.choices(RISKS, k=2)))
    question = rng.choice(prompts[category])
    turns = [message["content"] for message in question.messages]
    turns.append(answer(question.task, rng.betavariate(8, 1), rng))
    return " ".join(f"{('Guest', 'Host')[index % 2]}: {turn}" for index, turn in enumerate(turns))
