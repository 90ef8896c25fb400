"""The facts of the built-in world: twenty animals with four attributes each."""

from __future__ import annotations

import re
from dataclasses import dataclass

from alignment.world.lexicon import COLORS

ATTRIBUTES = ("food", "home", "color", "sound")

FACTS: dict[str, dict[str, str]] = {
    animal: dict(zip(ATTRIBUTES, values, strict=True))
    for animal, values in {
        "fox": ("mice", "forest", "red", "bark"),
        "bear": ("honey", "cave", "brown", "growl"),
        "crow": ("seeds", "tree", "black", "caw"),
        "cow": ("grass", "barn", "white", "moo"),
        "horse": ("apples", "stable", "brown", "neigh"),
        "frog": ("flies", "pond", "green", "croak"),
        "bee": ("flowers", "garden", "yellow", "buzz"),
        "duck": ("fish", "river", "white", "quack"),
        "wolf": ("meat", "mountain", "gray", "howl"),
        "goat": ("leaves", "hill", "black", "bleat"),
        "mouse": ("cheese", "kitchen", "gray", "squeak"),
        "snake": ("eggs", "field", "green", "hiss"),
        "sheep": ("grass", "hill", "white", "baa"),
        "pig": ("roots", "barn", "yellow", "oink"),
        "hen": ("seeds", "garden", "red", "cluck"),
        "lion": ("meat", "cave", "brown", "roar"),
        "donkey": ("leaves", "stable", "gray", "bray"),
        "turkey": ("berries", "forest", "black", "gobble"),
        "cricket": ("flowers", "field", "green", "chirp"),
        "pigeon": ("bread", "tree", "white", "coo"),
    }.items()
}
"""animal → attribute → the one true value."""

ANIMALS = tuple(FACTS)

VALUES: dict[str, tuple[str, ...]] = {
    attribute: COLORS
    if attribute == "color"
    else tuple(dict.fromkeys(FACTS[animal][attribute] for animal in ANIMALS))
    for attribute in ATTRIBUTES
}
"""Every value an attribute can have."""

SENTENCES = {
    "food": "the {animal} eats {value}",
    "home": "the {animal} lives in the {value}",
    "color": "the {animal} is {value}",
    "sound": "the {animal} says {value}",
}
"""How a fact is stated, in lower case and without the full stop."""

_PATTERNS = [
    (
        attribute,
        re.compile(
            sentence.replace("{animal}", f"(?P<animal>{'|'.join(ANIMALS)})").replace(
                "{value}", f"(?P<value>{'|'.join(VALUES[attribute])})"
            )
        ),
    )
    for attribute, sentence in SENTENCES.items()
]


@dataclass(frozen=True)
class Fact:
    """A statement about an animal, true or not."""

    animal: str
    attribute: str
    value: str

    @property
    def true(self) -> bool:
        """Whether the statement is true."""
        return FACTS[self.animal][self.attribute] == self.value

    @property
    def sentence(self) -> str:
        """The statement in lower case, without the full stop."""
        return SENTENCES[self.attribute].format(animal=self.animal, value=self.value)


def truth(animal: str, attribute: str) -> Fact:
    """The true fact."""
    return Fact(animal, attribute, FACTS[animal][attribute])


def parse_fact(sentence: str) -> Fact | None:
    """The fact that a lower-case sentence states, or None if it states none."""
    for attribute, pattern in _PATTERNS:
        if match := pattern.fullmatch(sentence):
            return Fact(match["animal"], attribute, match["value"])
    return None
