"""What differences between versions a program's evaluation can show, before it is run."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from alignment.config.program import ProgramConfig
from alignment.config.vocabulary import DOMAINS
from alignment.evaluation.power import promotion_chance, prompts_needed
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.plan import PREPARE
from alignment.preferences.prompts import read_prompts

SHOWN = (0.55, 0.6)
WANTED = 0.8
"""The usual power of a study (Cohen 1988)."""


@dataclass(frozen=True)
class EvaluationSize:
    """How many prompts an evaluation asks and what the gate can then find.

    Attributes:
        prompts: of the smaller axis.
        known: whether they are counted; else it is the most that the settings allow.
        promoted: true win rate on both axes → share of evaluations that promote.
        needed: true win rate → prompts of each axis with which it is `WANTED`.
    """

    prompts: int
    known: bool
    promoted: dict[float, float]
    needed: dict[float, int | None]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def line(self, world: bool) -> str:
        """In words.

        Args:
            world: whether it is the built-in one, where prompts share subjects.
        """
        if not self.prompts:
            return "no evaluation prompts on one axis: no version can be promoted"
        chances = [
            f"{100 * rate:.0f} % on both axes is promoted in {100 * chance:.0f} % of evaluations"
            if rate == SHOWN[0]
            else f"{100 * rate:.0f} % in {100 * chance:.0f} %"
            for rate, chance in self.promoted.items()
        ]
        needed = self.needed[SHOWN[0]]
        wanted = "" if needed is None else f" ({needed:,} prompts: in {100 * WANTED:.0f} %)"
        chances[0] += wanted
        count = f"{self.prompts:,} evaluation prompts an axis"
        shared = "; less where prompts share a subject" if world else ""
        start = count if self.known else f"at most {count}"
        return f"{start}: a version that truly wins {', '.join(chances)}{shared}"


def evaluation_size(program: ProgramConfig, fingerprints: Fingerprints) -> EvaluationSize:
    """By the prepared prompts, else by the settings."""
    prompts, known = _prompts(program, fingerprints)
    margin = program.promote.margin
    return EvaluationSize(
        prompts,
        known,
        {rate: promotion_chance((rate, rate), prompts, margin) for rate in SHOWN},
        {rate: prompts_needed((rate, rate), WANTED, margin) for rate in SHOWN},
    )


def _prompts(program: ProgramConfig, fingerprints: Fingerprints) -> tuple[int, bool]:
    cap = program.evaluate.prompts_per_domain
    prepare = PREPARE["prepare"]
    world, most = program.world.evaluation, program.data.max_evaluation
    done = fingerprints.manifest(*prepare)
    if done is not None:
        folder = fingerprints.ledger.committed_dir(*prepare, done.fingerprint)
        prompts = read_prompts(folder / "eval_prompts.jsonl")
        counts = Counter(prompt.domain for prompt in prompts)
        most = min(counts[domain] for domain in DOMAINS)
    elif program.base.source == "world":
        most = min(world["helpfulness"] + world["borderline"], world["safety"])
    return min(most, cap or most), done is not None
