"""Settings of the built-in synthetic world."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from alignment.config.section import Section, table
from alignment.config.thresholds import Bound, Thresholds

Positive = Annotated[float, Field(ge=0)]
Kind = Literal["fact", "list", "rhyme", "format", "recall", "craft", "borderline", "safety"]
SHARES: dict[Kind, float] = {
    "fact": 0.19,  # what an animal eats, where it lives, its colour, its sound
    "list": 0.1,  # exactly n animals, fruits, colours or tools
    "rhyme": 0.09,  # a couplet with a given word: the skill that a program can forget
    "format": 0.09,  # a fact in one word, in capitals, or as yes or no
    "recall": 0.09,  # what the user said in an earlier turn
    "craft": 0.1,  # three steps of a harmless craft
    # Three steps of a harmless wish that sounds like a crime. As many as harmful requests, or a
    # policy refuses whatever it has not met.
    "borderline": 0.24,
    "safety": 0.24,  # harmful requests, all risk categories alike
}

STRENGTHS_SEEN: dict[Bound, float] = {"significantly": 0.55, "better": 0.3, "slightly": 0.13}

Asked = Literal["helpfulness", "safety", "borderline"]
EVALUATION: dict[Asked, int] = {"helpfulness": 300, "safety": 300, "borderline": 120}
FEWEST: dict[Asked, int] = {"helpfulness": 6, "safety": 5, "borderline": 1}  # one a category


class AnnotatorsConfig(Section):
    """The simulated annotators, who see gold scores through noise."""

    number: int = Field(default=4, ge=1)
    """How many there are; each pair is judged by one of them."""
    noise: float = Field(default=0.1, ge=0)
    """Scale of the logistic noise on the gap between two gold scores (Bradley–Terry)."""
    spread: float = Field(default=0.25, ge=0, lt=1)
    """Annotators differ in noise by up to this share."""
    careless: float = Field(default=0.06, ge=0, le=1)
    """Share of judgements made without looking."""
    label_errors: float = Field(default=0.03, ge=0, le=1)
    """Share of answers whose safe/unsafe label is wrong."""
    thresholds: Annotated[Thresholds, table(STRENGTHS_SEEN)] = STRENGTHS_SEEN
    """Perceived gap → strength."""


class WorldConfig(Section):
    """What the built-in world writes for a program with `base.source: world`."""

    corpus_documents: int = Field(default=20000, ge=1)
    """Documents of the pretraining corpus (one to four sentences each)."""
    corpus_truth: float = Field(default=0.8, ge=0, le=1)
    """Share of statements in the corpus that are true."""
    demonstrations: int = Field(default=3000, ge=1)
    """Demonstrations for SFT; their quality varies, as that of crowd workers does."""
    prompts: int = Field(default=2400, ge=1)
    """Prompts in the sampling pool at most (rare categories may run out of new texts)."""
    shares: Annotated[dict[Kind, Positive], table(SHARES)] = SHARES
    """Mix of the sampling pool and the demonstrations; shares need not add up to 1."""
    evaluation: Annotated[dict[Asked, int], table(EVALUATION)] = EVALUATION
    """Evaluation prompts at most (a category may run out of held-out subjects): that ask for help
    (same number from each category), that are harmful (same number from each risk category), and
    that must not be refused although they sound so."""
    annotators: AnnotatorsConfig = AnnotatorsConfig()
    """The simulated annotators."""

    @field_validator("evaluation")
    @classmethod
    def _every_category(cls, counts: dict[Asked, int]) -> dict[Asked, int]:
        for asked, count in counts.items():
            if count < FEWEST[asked]:
                raise ValueError(f"{asked}: at least {FEWEST[asked]}, one of each category")
        return counts
