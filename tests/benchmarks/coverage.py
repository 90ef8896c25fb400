"""How often the intervals that `align` shows hold the truth: 93–97 % for a nominal 95 %.

    python -m tests.benchmarks.coverage [WORD …]

Draws data of known truth and has the functions that measure work out their intervals. Prints the
table of docs/statistics.md, in some minutes on one core; with words only rows whose name has one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from alignment.evaluation.bound_checks import rise_name
from alignment.evaluation.diversity import PROMPTS
from alignment.evaluation.forgetting import forgetting
from alignment.evaluation.standings import refusal_figures, refusal_rises, score_figures
from alignment.evaluation.winrate import win_rate
from alignment.rewards.evaluate import accuracy, calibration, length_bias, moved, unsafe_detection
from alignment.rewards.heldout_scores import Measured
from alignment.rewards.threshold_fit import Kind, cross_fitted, fit_threshold
from alignment.utils.statistics import Interval, auc, bootstrap_mean

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator], tuple[Interval, int, int]]
"""Draws data and measures: the interval, the number of values and of clusters."""

WANTED = (0.93, 0.97)
TRIALS = 2000


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    draw: Draw
    truth: float


def effects(generator: np.random.Generator, sizes: NDArray[np.int_], share: float) -> Floats:
    """Standard normal values of which `share` of the variance is common to each cluster."""
    common = np.repeat(generator.normal(size=len(sizes)), sizes)
    return np.sqrt(share) * common + np.sqrt(1 - share) * generator.normal(size=int(sizes.sum()))


def numbers(sizes: NDArray[np.int_]) -> NDArray[np.int_]:
    """The cluster of every value."""
    return np.repeat(np.arange(len(sizes)), sizes)


# --- reward models -----------------------------------------------------------------------------


def measured(gap: Floats, opening: NDArray[np.int_], **columns: Any) -> Measured:
    """Held-out comparisons with the given gap between the chosen and the rejected score."""
    n = len(gap)
    zero = np.zeros(n)
    given: dict[str, Any] = {
        **dict.fromkeys(("rejected", "chosen_safe", "rejected_safe"), zero),
        **dict.fromkeys(("chosen_tokens", "rejected_tokens"), zero),
        **dict.fromkeys(("strength", "domain", "batch", "bins"), np.full(n, "", dtype=object)),
        "chosen": gap,
        "opening": opening,
    }
    return Measured(**{**given, **columns})


def ranked(
    generator: np.random.Generator, prompts: int, answers: int
) -> tuple[Floats, NDArray[np.int_]]:
    """Gaps and prompts of all pairs of rankings of K answers, where prompts differ in noise."""
    true = generator.normal(size=(prompts, answers))
    noise = np.exp(generator.normal(0, 0.5, (prompts, 1)))
    scores = true + generator.normal(size=true.shape) * noise
    a, b = np.triu_indices(answers, 1)
    gaps = (scores[:, a] - scores[:, b]) * np.sign(true[:, a] - true[:, b])
    return gaps.ravel(), np.repeat(np.arange(prompts), len(a))


def dialogues(
    generator: np.random.Generator, openings: int, mean: float
) -> tuple[Floats, NDArray[np.int_]]:
    """Gaps of dialogues of 1 to 6 turns that share how well they are understood."""
    sizes = generator.integers(1, 7, openings)
    return mean + effects(generator, sizes, 0.4), numbers(sizes)


def annotated(generator: np.random.Generator, pairs: int) -> tuple[Floats, NDArray[np.int_]]:
    """Two people's verdicts on each pair; the second differs in a fifth of them."""
    gap = generator.normal(0.8, 1, pairs)
    second = np.where(generator.random(pairs) < 0.2, -gap, gap)
    return np.stack([gap, second], axis=1).ravel(), np.repeat(np.arange(pairs), 2)


def accuracy_of(make: Callable[..., tuple[Floats, NDArray[np.int_]]], *settings: Any) -> Draw:
    def draw(generator: np.random.Generator) -> tuple[Interval, int, int]:
        gap, opening = make(generator, *settings)
        cell = accuracy(measured(gap, opening))
        found = Interval(cell["accuracy"], cell["low"], cell["high"])
        return found, len(gap), len(np.unique(opening))

    return draw


def single(
    generator: np.random.Generator, pairs: int, mean: float
) -> tuple[Floats, NDArray[np.int_]]:
    return generator.normal(mean, 1, pairs), np.arange(pairs)


def gain_of(openings: int) -> Draw:
    """Two reward models on the same dialogues, one the better by a fifth of a deviation."""

    def draw(generator: np.random.Generator) -> tuple[Interval, int, int]:
        sizes = generator.integers(1, 7, openings)
        common = effects(generator, sizes, 0.4)
        own = [np.sqrt(0.5) * (common + effects(generator, sizes, 0.4)) for _ in range(2)]
        now, before = (
            measured(mean + gap, numbers(sizes)) for mean, gap in zip((0.8, 0.6), own, strict=True)
        )
        found = moved(now, before, seed=int(generator.integers(2**31)), samples=1000)["gain"]
        return Interval(found["points"], found["low"], found["high"]), len(common), openings

    return draw


def bin_of(openings: int) -> Draw:
    """Accuracy of the comparisons about which the model is 70–75 % sure, as often right."""

    def draw(generator: np.random.Generator) -> tuple[Interval, int, int]:
        sizes = generator.integers(1, 7, openings)
        right = effects(generator, sizes, 0.4) < stats.norm.ppf(0.725)
        sure = float(np.log(0.725 / 0.275))
        gap = np.where(right, sure, -sure)
        _, (row,) = calibration(gap, np.zeros(len(gap)), numbers(sizes))
        return Interval(row["accuracy"], row["low"], row["high"]), len(gap), openings

    return draw


def detected(figure: str, pairs: int) -> Draw:
    """Recall or precision at P(safe) < ½ for pairs of one safe and one unsafe answer, or two alike,
    that share their prompt's level."""

    def draw(generator: np.random.Generator) -> tuple[Interval, int, int]:
        kinds = generator.choice(["chosen_safe", "both_safe", "both_unsafe"], pairs)
        level = generator.normal(0, 0.7, pairs)
        safe = (kinds != "both_unsafe", kinds == "both_safe")
        chance = [
            1 / (1 + np.exp(-(level + np.where(own, 1.2, -1.2) + generator.normal(size=pairs))))
            for own in safe
        ]
        rows = measured(
            np.zeros(pairs),
            np.arange(pairs),
            bins=kinds,
            chosen_safe=chance[0],
            rejected_safe=chance[1],
        )
        found = unsafe_detection(rows)
        ends = (found[figure], found[f"{figure}_low"], found[f"{figure}_high"])
        return Interval(*ends), 2 * pairs, pairs

    return draw


def separated(pairs: int) -> Draw:
    """AUC of P(safe) for a safe and an unsafe answer to each prompt, which share its level."""

    def draw(generator: np.random.Generator) -> tuple[Interval, int, int]:
        level = generator.normal(0, 0.5**0.5, pairs)
        safe, unsafe = (level + generator.normal(mean, 1, pairs) for mean in (1, 0))
        places = np.arange(pairs)
        return auc(safe, unsafe, clusters=(places, places)), 2 * pairs, pairs

    return draw


def apart(answers: int) -> Draw:
    """AUC of P(safe) for safe and unsafe answers to different prompts."""

    def draw(generator: np.random.Generator) -> tuple[Interval, int, int]:
        safe, unsafe = (generator.normal(mean, 1, answers) for mean in (1, 0))
        places = np.arange(answers)
        return auc(safe, unsafe, clusters=(places, answers + places)), 2 * answers, 2 * answers

    return draw


def labelled(generator: np.random.Generator, pairs: int) -> tuple[Floats, NDArray[np.bool_]]:
    """P(safe) and whether they are unsafe of two answers to each prompt, which share its level."""
    common = np.repeat(generator.normal(size=pairs), 2)
    unsafe = 0.6 * common + generator.normal(0, 0.8, 2 * pairs) < -0.6
    level = np.repeat(generator.normal(0, 0.5, pairs), 2) + generator.normal(0, 0.9, 2 * pairs)
    return 1 / (1 + np.exp(np.where(unsafe, 1.6, -1.6) - level)), unsafe


def on_others(kind: Kind, wish: float, pairs: int) -> Draw:
    """How far a fitted threshold's precision (or recall) lies from what is said of it."""
    every, which = labelled(np.random.default_rng(0), 500_000)

    def draw(generator: np.random.Generator) -> tuple[Interval, int, int]:
        openings = np.repeat(np.arange(pairs), 2)
        while True:
            chance, unsafe = labelled(generator, pairs)
            try:
                found = fit_threshold(chance, unsafe, openings, kind, wish)
                break
            except ValueError:  # out of reach: nothing is said
                continue
        below = every < found.threshold
        true = which[below].mean() if kind == "precision" else below[which].mean()
        said = cross_fitted(
            chance, unsafe, openings, kind, wish, seed=int(generator.integers(2**31))
        )
        error = getattr(said, kind)
        return Interval(*(end - float(true) for end in error)), 2 * pairs, pairs

    return draw


def length_correlated(openings: int) -> Draw:
    """Correlation 0.3 of reward gap and length gap, both of which a dialogue shares."""

    def draw(generator: np.random.Generator) -> tuple[Interval, int, int]:
        sizes = generator.integers(1, 7, openings)
        length = effects(generator, sizes, 0.4)
        gap = 0.3 * length + 0.91**0.5 * effects(generator, sizes, 0.4)
        rows = measured(gap, numbers(sizes), chosen_tokens=np.round(1000 * length))
        found = length_bias(rows, int(generator.integers(2**31)), 1000)
        ends = (found["correlation"], found["correlation_low"], found["correlation_high"])
        return Interval(*ends), len(gap), openings

    return draw


# --- evaluation --------------------------------------------------------------------------------


def won(
    prompts: int,
    rate: float,
    *,
    ties: float = 0.0,
    each: int = 1,
    share: float = 0.3,
    controlled: bool = False,
) -> Draw:
    """Win rate of prompts of which `each` ask about one subject. `controlled`: at equal length,
    where the longer answer has the better odds."""

    def draw(generator: np.random.Generator) -> tuple[Interval, int, int]:
        sizes = np.full(prompts // each, each)
        luck = stats.norm.cdf(effects(generator, sizes, share if each > 1 else 0.0))
        lengths = generator.normal(100, 30, (2, prompts))
        chance: Any = rate
        if controlled:
            gap = np.tanh((lengths[0] - lengths[1]) / lengths.std())
            chance = 1 / (1 + np.exp(-(np.log(rate / (1 - rate)) + gap)))
        results = (luck < chance).astype(float)
        results[generator.random(prompts) < ties] = 0.5
        found = win_rate(
            results,
            *lengths,
            subjects=numbers(sizes) if each > 1 else None,
        )
        return found.controlled if controlled else found.rate, prompts, len(sizes)

    return draw


def answers(
    generator: np.random.Generator, prompts: int, each: int, values: dict[str, Any]
) -> pd.DataFrame:
    """A table of an evaluation's answers."""
    table = pd.DataFrame(
        {
            "prompt_id": [f"{i:06d}" for i in range(prompts)],
            "domain": "helpfulness",
            "category": "all",
            "borderline": True,
            **values,
        }
    )
    return table if each == 1 else table.assign(subject=numbers(np.full(prompts // each, each)))


def refused(prompts: int, rate: float, each: int = 1) -> Draw:
    """False refusals, as `refusal_figures` finds them."""

    def draw(generator: np.random.Generator) -> tuple[Interval, int, int]:
        luck = stats.norm.cdf(effects(generator, np.full(prompts // each, each), 0.4))
        values = {"refused": luck < rate}
        table = answers(generator, prompts, each, values)
        found = refusal_figures(table)
        ends = tuple(found[f"false_refusal{end}"] for end in ("", "_low", "_high"))
        return Interval(*ends), prompts, prompts // each

    return draw


def rise(prompts: int, before: float, after: float, each: int = 1) -> Draw:
    """The rise of false refusals that the gate looks at, where half of how a side takes a prompt is
    the prompt's own, and of that most is its subject's."""

    def draw(generator: np.random.Generator) -> tuple[Interval, int, int]:
        common = effects(generator, np.full(prompts // each, each), 0.8 if each > 1 else 0.0)
        sides = [
            answers(generator, prompts, each, {"refused": stats.norm.cdf(luck) < rate})
            for rate in (before, after)
            for luck in [np.sqrt(0.5) * (common + generator.normal(size=prompts))]
        ]
        found = refusal_rises(sides[1], {"sft": sides[0]})
        name = rise_name("sft")
        ends = (found[name], found[f"{name}_low"], found[f"{name}_high"])
        return Interval(*ends), prompts, prompts // each

    return draw


def scored(prompts: int, each: int) -> Draw:
    """Mean gold score, most of which are 0.24 or 0.8."""

    def draw(generator: np.random.Generator) -> tuple[Interval, int, int]:
        luck = effects(generator, np.full(prompts // each, each), 0.3)
        scores = np.where(luck < stats.norm.ppf(0.3), 0.8, 0.24)
        values = {"gold_helpfulness": scores, "gold_safety": scores}
        table = answers(generator, prompts, each, values)
        found = score_figures(table, seed=int(generator.integers(2**31)), samples=1000)
        name = "score/gold/helpfulness"
        ends = (found[name], found[f"{name}_low"], found[f"{name}_high"])
        return Interval(*ends), prompts, prompts // each

    return draw


def forgotten(prompts: int, each: int, earlier: int = 1, worse: float = 0.1) -> Draw:
    """The paired difference of a category from the best of so many earlier versions, all of which
    are truly better by `worse` deviations."""

    def draw(generator: np.random.Generator) -> tuple[Interval, int, int]:
        sizes = np.full(prompts // each, each)
        common = effects(generator, sizes, 0.3)
        sides = {}
        for name in ("sft", *(f"rlhf-v{i + 1}" for i in range(earlier))):
            mean = -worse if name == f"rlhf-v{earlier}" else 0.0
            scores = mean + common + effects(generator, sizes, 0.3)
            values = {"gold_helpfulness": scores, "gold_safety": scores}
            sides[name] = answers(generator, prompts, each, values)
        seed = int(generator.integers(2**31))
        (row,) = forgetting(f"rlhf-v{earlier}", sides, "gold", seed=seed, samples=1000)
        return Interval(row["difference"], row["low"], row["high"]), prompts, len(sizes)

    return draw


def mean_of(values: int, make: Callable[[np.random.Generator, int], Floats], each: int = 1) -> Draw:
    """The mean of values, of which `each` share half of what they vary by."""

    def draw(generator: np.random.Generator) -> tuple[Interval, int, int]:
        drawn, groups = make(generator, values), numbers(np.full(values // each, each))
        if each > 1:
            luck = stats.norm.cdf(effects(generator, np.full(values // each, each), 0.5))
            drawn = np.quantile(make(generator, 20_000), luck)
        seed = int(generator.integers(2**31))
        return bootstrap_mean(drawn, seed=seed, clusters=groups), values, len(groups) // each

    return draw


def divergences(generator: np.random.Generator, count: int) -> Floats:
    """KL of answers in nats: as skewed as an exponential distribution (Γ of shape 2, mean 5)."""
    return generator.gamma(2.0, 2.5, count)


def similarities(generator: np.random.Generator, count: int) -> Floats:
    """Self-BLEU within prompts."""
    return generator.beta(3.0, 2.0, count)


def level_of(make: Callable[..., tuple[Floats, Any]], *settings: Any) -> float:
    """P(right) of a design."""
    return float((make(np.random.default_rng(7), 200_000, *settings)[0] > 0).mean())


def cases() -> list[Case]:
    """All rows, in the order of the table."""
    normal = stats.norm.cdf
    nine, four, two = (level_of(ranked, k) for k in (9, 4, 2))
    flagged = float(normal(1.2 / np.sqrt(1.49)))
    rows: list[tuple[str, Draw, float]] = [
        ("reward model: pairs", accuracy_of(single, 60, 0.5), float(normal(0.5))),
        ("reward model: pairs, hard to miss", accuracy_of(single, 60, 1.7), float(normal(1.7))),
        ("reward model: few pairs", accuracy_of(single, 20, 0.5), float(normal(0.5))),
        ("rankings, K = 9", accuracy_of(ranked, 28, 9), nine),
        ("rankings, K = 9", accuracy_of(ranked, 200, 9), nine),
        ("rankings, K = 4", accuracy_of(ranked, 28, 4), four),
        ("rankings, K = 4, few", accuracy_of(ranked, 6, 4), four),
        ("rankings, K = 2", accuracy_of(ranked, 28, 2), two),
        ("dialogues of 1–6 turns", accuracy_of(dialogues, 40, 0.5), float(normal(0.5))),
        ("dialogues, hard to miss", accuracy_of(dialogues, 40, 1.7), float(normal(1.7))),
        ("two annotators a pair", accuracy_of(annotated, 60), level_of(annotated)),
        ("gain of a reward model, dialogues", gain_of(40), float(normal(0.8) - normal(0.6))),
        ("reliability bin, dialogues", bin_of(40), 0.725),
        ("recall of unsafe answers", detected("recall", 100), flagged),
        ("precision of unsafe answers", detected("precision", 100), flagged),
        ("AUC of P(safe), answers apart", apart(60), float(normal(1 / np.sqrt(2)))),
        ("AUC of P(safe), both of a prompt", separated(60), float(normal(1 / np.sqrt(3)))),
        ("length correlation, dialogues", length_correlated(60), 0.3),
        ("win rate", won(10, 0.5), 0.5),
        ("win rate", won(20, 0.5), 0.5),
        ("win rate", won(50, 0.7), 0.7),
        ("win rate", won(200, 0.55), 0.55),
        ("win rate", won(1000, 0.55), 0.55),
        ("win rate, 30 % ties", won(50, 0.7, ties=0.3), 0.64),
        ("win rate, 30 % ties", won(200, 0.55, ties=0.3), 0.535),
        ("win rate, 90 % ties", won(100, 0.7, ties=0.9), 0.52),
        ("win rate near 1", won(50, 0.95), 0.95),
        ("win rate near 1", won(200, 0.97), 0.97),
        ("win rate near 0", won(100, 0.02), 0.02),
        ("win rate, subjects", won(96, 0.6, each=8), 0.6),
        ("win rate, subjects", won(200, 0.6, each=4), 0.6),
        ("win rate, subjects, near 1", won(200, 0.95, each=4), 0.95),
        ("win rate, few subjects", won(48, 0.6, each=8), 0.6),
        ("win rate at equal length", won(100, 0.6, controlled=True), 0.6),
        ("win rate at equal length", won(400, 0.6, controlled=True), 0.6),
        ("win rate at equal length", won(40, 0.8, controlled=True), 0.8),
        ("the same, subjects", won(200, 0.6, each=4, controlled=True), 0.6),
        ("false refusals", refused(80, 0.1), 0.1),
        ("false refusals", refused(250, 0.02), 0.02),
        ("false refusals, subjects", refused(80, 0.2, each=4), 0.2),
        ("rise of false refusals", rise(80, 0.1, 0.15), 0.05),
        ("rise of false refusals", rise(250, 0.1, 0.1), 0.0),
        ("mean score", scored(100, 1), 0.24 + 0.3 * 0.56),
        ("mean score, subjects", scored(200, 4), 0.24 + 0.3 * 0.56),
        ("forgetting: difference", forgotten(10, 1), -0.1),
        ("forgetting: difference", forgotten(30, 1), -0.1),
        ("forgetting: difference, subjects", forgotten(40, 4), -0.1),
        ("forgetting: best of five alike", forgotten(30, 1, earlier=5, worse=0.0), 0.0),
        ("KL", mean_of(50, divergences), 5.0),
        ("KL", mean_of(400, divergences), 5.0),
        ("Self-BLEU within prompts", mean_of(PROMPTS, similarities), 0.6),
        ("rise of false refusals, subjects", rise(80, 0.2, 0.4, each=10), 0.2),
        ("KL, subjects", mean_of(200, divergences, each=4), 5.0),
        ("precision of a fitted threshold", on_others("precision", 0.9, 100), 0.0),
        ("precision of a fitted threshold", on_others("precision", 0.9, 250), 0.0),
        ("recall of a fitted threshold", on_others("recall", 0.6, 100), 0.0),
    ]
    return [Case(*row) for row in rows]


def main() -> None:
    """See the module."""
    words = sys.argv[1:]
    head = ("interval of", "truth", "values", "clusters", "coverage", "mean width")
    for cells in (head, ["---"] * len(head)):
        print(f"| {' | '.join(cells)} |")
    for number, case in enumerate(cases()):
        if words and not any(word in case.name for word in words):
            continue
        generator = np.random.default_rng(number)
        hits, width, values, clusters = 0, 0.0, 0, 0
        for _ in range(TRIALS):
            found, n, clusters = case.draw(generator)
            hits += found.low <= case.truth <= found.high
            width += found.high - found.low
            values += n
        share = hits / TRIALS
        mark = "" if WANTED[0] <= share <= WANTED[1] else " *"
        cells = (
            case.name,
            f"{case.truth:.3f}",
            f"{values / TRIALS:.0f}",
            f"{clusters}",
            f"{100 * share:.1f} %{mark}",
            f"{width / TRIALS:.3f}",
        )
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
