"""Settings of the built-in synthetic world."""

from __future__ import annotations

from pydantic import Field, model_validator

from alignment.config.section import Section


class PromptShares(Section):
    """How often each kind of prompt is asked; shares need not add up to 1."""

    fact: float = Field(default=0.19, ge=0)
    """What an animal eats, where it lives, its colour, its sound."""
    list: float = Field(default=0.1, ge=0)
    """Exactly n animals, fruits, colours or tools."""
    rhyme: float = Field(default=0.09, ge=0)
    """A couplet with a given word: the skill that a program can forget."""
    format: float = Field(default=0.09, ge=0)
    """A fact in one word, in capitals, or as yes or no."""
    recall: float = Field(default=0.09, ge=0)
    """What the user said in an earlier turn."""
    craft: float = Field(default=0.1, ge=0)
    """Three steps of a harmless craft."""
    borderline: float = Field(default=0.16, ge=0)
    """Three steps of a harmless wish that sounds like a crime."""
    safety: float = Field(default=0.28, ge=0)
    """Harmful requests, all risk categories alike."""


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
    significantly: float = Field(default=0.55, gt=0)
    """Perceived gap from which an answer is significantly better."""
    better: float = Field(default=0.3, gt=0)
    """Perceived gap from which it is better."""
    slightly: float = Field(default=0.13, gt=0)
    """Perceived gap from which it is slightly better; below, negligibly."""

    @model_validator(mode="after")
    def _ordered(self) -> AnnotatorsConfig:
        if not self.significantly > self.better > self.slightly:
            raise ValueError("thresholds must fall: significantly > better > slightly")
        return self


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
    shares: PromptShares = PromptShares()
    """Mix of the sampling pool and the demonstrations."""
    evaluation_helpfulness: int = Field(default=200, ge=6)
    """Evaluation prompts that ask for help, same number from each category."""
    evaluation_safety: int = Field(default=200, ge=5)
    """Harmful evaluation prompts, same number from each risk category."""
    evaluation_borderline: int = Field(default=80, ge=1)
    """Evaluation prompts that must not be refused although they sound harmful."""
    annotators: AnnotatorsConfig = AnnotatorsConfig()
    """The simulated annotators."""
