"""How often early stopping and the verdict on held-out looks err.

    python -m tests.benchmarks.early_stopping

Draws the looks of PPO runs whose true held-out score is known, as independent as they can be: with
common random numbers looks differ by less. Prints the tables of docs/ppo.md, in a minute.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from alignment.config.ppo import PPOConfig, StopConfig
from alignment.training.ppo.early_stopping import EarlyStopping
from alignment.training.ppo.health import verdicts
from tests.benchmarks.gate_power import percent, table

Floats = NDArray[np.float64]
RUNS = 1000
GAINS = (0.25, 0.5, 1.0)
LOOKS = (20, 30)
SPREADS = (0.5, 0.7)
SETTINGS = ((64, 3), (64, 5), (128, 5), (256, 5), (512, 5))


class Before(EarlyStopping):
    """The rule of 0.1: patience alone."""

    def _rises(self, patience: int) -> bool:
        return False


RULES = ((Before, 64, 3), *((EarlyStopping, *each) for each in SETTINGS))


def looks(truth: Floats, spread: float, prompts: int, generator: np.random.Generator) -> Floats:
    """(RUNS, looks) scores of runs; `spread` is the deviation of answers to one prompt."""
    return truth + generator.normal(0, spread / prompts**0.5, (RUNS, len(truth)))


def stopped(
    scores: Sequence[float], patience: int, rule: type[EarlyStopping] = EarlyStopping
) -> tuple[int | None, int]:
    """At which look it stops, if it does before the last, and which look's weights are kept."""
    stopping = rule(StopConfig(patience=patience))
    for number, score in enumerate(scores):
        stopping.observe(number, score, 0.0)
        if stopping.reason(0.0) is not None and number < len(scores) - 1:
            return number, stopping.best_iteration
    return None, stopping.best_iteration


def steady() -> None:
    """Runs that gain as much at each look."""
    generator, rows = np.random.default_rng(0), []
    for spread in SPREADS:
        for count in LOOKS:
            for gain in GAINS:
                truth = gain * np.linspace(0, 1, count + 1)
                cells = [
                    percent(
                        np.mean(
                            [
                                stopped(run, patience, rule)[0] is not None
                                for run in looks(truth, spread, prompts, generator).tolist()
                            ]
                        )
                    )
                    for rule, prompts, patience in RULES
                ]
                rows.append([f"{spread}", f"{count}", f"{gain}", *cells])
    head = ("spread within a prompt", "looks", "gain of the run")
    names = (f"{n} prompts, patience {p}" for _, n, p in RULES[1:])
    table([*head, "0.1's rule: 64 prompts, patience 3", *names], rows)


def peaked() -> None:
    """Runs of 30 looks that gain 0.5 in ten looks and lose it again in twenty; and flat ones."""
    generator, rows = np.random.default_rng(1), []
    steps = np.arange(31)
    hill = 0.5 * np.minimum(steps / 10, 1) - 0.5 * np.maximum(0, steps - 10) / 20
    for prompts, patience in SETTINGS:
        ends = [stopped(run, patience) for run in looks(hill, 0.5, prompts, generator).tolist()]
        kept = np.array([hill[best] for _, best in ends])
        flat = [
            stopped(run, patience)[0] or 30
            for run in looks(np.zeros(31), 0.5, prompts, generator).tolist()
        ]
        cells = (
            f"{np.mean([30 if at is None else at for at, _ in ends]):.1f}",
            percent(kept.mean() / 0.5),
            percent(np.mean(kept >= 0.45)),
            f"{np.mean(flat):.1f}",
        )
        rows.append([f"{prompts} prompts, patience {patience}", *cells])
    head = ("settings", "stops at look", "of the peak kept", "90 % of it kept in", "flat: stops at")
    table(head, rows)


def alarms() -> None:
    """The verdict `held_out` on looks with a standard error of 1."""
    generator, rows = np.random.default_rng(2), []
    config = PPOConfig()
    for fall in (0.0, 2.0, 4.0, 6.0):
        cells = []
        for count in (5, 10, 20, 40):
            truth = np.where(np.arange(count) < count // 2, 0.0, -fall)
            found = []
            for run in (truth + generator.normal(size=(RUNS, count))).tolist():
                curves = [
                    {"look/score": score, "look/error": 1.0, "score/mean": float(number)}
                    for number, score in enumerate(run)
                ]
                (verdict,) = (
                    one
                    for one in verdicts(curves, max_new_tokens=32, config=config)
                    if one.name == "held_out"
                )
                found.append(verdict.level != "ok")
            cells.append(percent(np.mean(found)))
        rows.append([f"{fall:.0f}", *cells])
    table(["true fall, standard errors", *(f"{n} looks" for n in (5, 10, 20, 40))], rows)


def main() -> None:
    """See the module."""
    print("Steadily improving runs that were stopped early\n")
    steady()
    print("Runs that fall after a peak\n")
    peaked()
    print("The verdict that the held-out score falls\n")
    alarms()


if __name__ == "__main__":
    main()
