"""Settings of intake (what becomes of a delivery) and of real data (what it is made from)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from alignment.config.location import Location
from alignment.config.section import Section, table
from alignment.config.thresholds import Bound, Thresholds
from alignment.config.vocabulary import Domain, Strength
from alignment.errors import ConfigError

FormatName = Literal[
    "hh",
    "native",
    "trl",
    "webgpt",
    "pandalm",
    "ranking",
    "label-studio",
    "argilla",
    "annotated",
]

FILE_DOMAINS: dict[str, Domain] = {
    "*harmless*": "safety",
    "*safety*": "safety",
    "*red-team*": "safety",
    "*helpful*": "helpfulness",
    "*webgpt*": "helpfulness",
    "*pandalm*": "helpfulness",
}


SCORE_GAPS: dict[Bound, float] = {"significantly": 2.0, "better": 1.0, "slightly": 0.5}
AGREEMENT: dict[Bound, float] = {"significantly": 1.0, "better": 0.75, "slightly": 0.5}

Share = Annotated[float, Field(gt=0, lt=1)]
Part = Literal["evaluation", "prompts", "demonstrations"]
PARTS: dict[Part, float] = {"evaluation": 0.1, "prompts": 0.2, "demonstrations": 0.2}


class IntakeConfig(Section):
    """Where preferences come from, and what a delivery must be like to be taken in."""

    source: Literal["simulated", "split", "inbox"] = "simulated"
    """`simulated`: the built-in world's annotators judge what `collect` sampled. `split`: the data
    at `path` are split into arrivals, one for each version. `inbox`: what people delivered with
    `align ingest`, and the files at `path`."""
    path: Location | None = None
    """`split`: file or directory of real preferences. `inbox`: the directory that is looked through
    for deliveries; unset: `inbox` in the workspace."""
    format: FormatName | None = None
    """Reader to use for every file; unset means that the content decides."""
    domain: Domain | None = None
    """Domain of comparisons for which neither the row nor `domains` says one."""
    domains: dict[str, Domain] = Field(default_factory=lambda: dict(FILE_DOMAINS))
    """Pattern of the file's name, else of its directory (lower case) → domain; the first that fits
    counts."""
    strength: Strength = "negligibly"
    """Strength of comparisons whose format knows none (HH, TRL, rankings). `negligibly` has no
    margin in the ranking loss; one margin for all would teach too large gaps: with `better`, what
    people prefer in 70 % of cases is learnt as 77 %."""
    score_gaps: Annotated[Thresholds, table(SCORE_GAPS)] = SCORE_GAPS
    """Scored pairs (WebGPT, −3 … 3): gap of the scores → strength. No gap is a tie."""
    agreement: Annotated[Thresholds, table(AGREEMENT)] = AGREEMENT
    """Several annotators a pair: share that voted for the winner → strength."""
    max_quarantine: float = Field(default=0.1, ge=0, le=1)
    """A delivery with a larger share of bad rows is refused whole. Contradictions between people
    are quarantined too, but do not count here."""
    max_characters: int = Field(default=100_000, ge=1)
    """Rows whose conversation and longer answer have more characters are quarantined."""
    max_bytes: int = Field(default=8 * 2**30, ge=1)
    """A file that unpacks to more bytes is refused: nobody's preferences are that many."""
    heldout_rows: int = Field(default=1000, ge=0)
    """Comparisons of a batch that are kept for measuring (Llama 2: 1000)."""
    heldout_share: float = Field(default=0.1, ge=0, le=0.5)
    """At most this share of a smaller batch is kept for measuring."""


class DataConfig(Section):
    """How real preferences (`base.source: path`) become a program's data.

    Whole conversations (all that open with the same user turn) are dealt by hash into four parts
    that share nothing: evaluation prompts, the pool of prompts that policies sample from,
    demonstrations, and the arrivals. The first three leave; the arrivals get the rest.
    """

    path: Location | None = None
    """File or directory of real preferences to make prompts and demonstrations from; unset:
    `intake.path` where that is split. With `intake.source: inbox` it is needed."""
    arrivals: int = Field(default=5, ge=1)
    """Deliveries made for `intake.source: split`; one for each version at least."""
    shares: Annotated[dict[Part, Share], table(PARTS)] = PARTS
    """Shares of conversations: `evaluation`, whose prompts are answered in evaluation only;
    `prompts`, which policies sample from; `demonstrations`, whose preferred answers SFT learns."""
    max_evaluation: int = Field(default=1000, ge=1)
    """At most so many evaluation prompts a domain."""
    max_prompt_characters: int = Field(default=4000, ge=1)
    """Longer conversations serve no prompt and no demonstration (tokens are counted later)."""
    max_answer_characters: int = Field(default=4000, ge=1)
    """Longer preferred answers serve no demonstration."""
    borderline: Location | None = None
    """CSV of prompts that look unsafe (XSTest: columns `prompt`, `label`, `type`); those labelled
    `safe` become borderline evaluation prompts, which must not be refused."""

    def location(self, intake: IntakeConfig) -> tuple[str, str]:
        """The path of the real preferences, and the key of the setting that names it.

        Raises:
            ConfigError: none does.
        """
        split = intake.source == "split"
        key = "intake.path" if split and self.path is None else "data.path"
        path = self.path or (intake.path if split else None)
        if path is None:
            raise ConfigError(
                "no preference data is named to make prompts and demonstrations from",
                where=key,
                remedy=f"--set {key}=FILE_OR_DIRECTORY",
            )
        return path, key

    @field_validator("shares")
    @classmethod
    def _something_left(cls, shares: dict[Part, float]) -> dict[Part, float]:
        if sum(shares.values()) >= 1:
            raise ValueError("these shares leave nothing for arrivals")
        return shares
