"""Statistics of a batch, accumulated while its rows are read."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Any

import numpy as np

from alignment.config.vocabulary import DOMAINS, STRENGTHS, version_order
from alignment.preferences.agreement import Alpha, agreement
from alignment.preferences.newer_wins import NewerWins
from alignment.preferences.rows import Draft, Votes
from alignment.preferences.schema import LLAMA2_BINS, SAFETY_BINS

CUT = "an answer that was cut at the token limit"


class Tally:
    """Counts accepted comparisons; memory grows by 16 bytes a row, and by 33 more where two
    versions are compared."""

    def __init__(self) -> None:
        self.strengths: Counter[tuple[str, str]] = Counter()
        self.bins: Counter[str] = Counter()
        self.domains: Counter[str] = Counter()
        self.categories: Counter[str] = Counter()
        self.chosen_by: Counter[tuple[str, float]] = Counter()
        self.rejected_by: Counter[tuple[str, float]] = Counter()
        self.newer = NewerWins()
        self.annotators: Counter[str] = Counter()
        self.groups: set[str] = set()
        self.turns = array("i")
        self.prompt = array("i")
        self.chosen = array("i")
        self.rejected = array("i")
        self.agreements = array("d")
        self.alpha = Alpha()
        self.unnamed = 0
        self.alike: Counter[str] = Counter()
        self.compared: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()

    def add(self, draft: Draft, *, opening: int, named: bool = True) -> None:
        """Count one accepted comparison.

        Args:
            opening: digest of its opening.
            named: its votes are known to be of different people.
        """
        domain = draft.domain or ""
        self.strengths[domain, draft.strength] += 1
        self.domains[domain] += 1
        if draft.safety_bin is not None:
            self.bins[draft.safety_bin] += 1
        if draft.category is not None:
            self.categories[draft.category] += 1
        if draft.chosen_by is not None:
            self.chosen_by[draft.chosen_by[:2]] += 1
        if draft.rejected_by is not None:
            self.rejected_by[draft.rejected_by[:2]] += 1
            if draft.chosen_by is not None:
                self.newer.add(draft, opening)
        self.notes.update(draft.notes)
        self.notes.update(
            CUT for by in (draft.chosen_by, draft.rejected_by) if by and not by.finished
        )
        if not named:
            self.unnamed += 1
        elif draft.people is not None:
            self.add_people(draft.people)
        else:
            self.annotators.update([draft.annotator] if draft.annotator is not None else [])
            self.add_people([(None, vote) for vote in draft.votes or []])
        if draft.group is not None:
            self.groups.add(draft.group)
        self.turns.append((len(draft.turns) + 1) // 2)  # user turns: they alternate, last included
        self.prompt.append(draft.prompt_characters)
        self.chosen.append(len(draft.chosen))
        self.rejected.append(len(draft.rejected))

    def add_people(self, people: Votes) -> None:
        """Count the votes on one pair, which may be tied or left out for another reason."""
        people = [(None if name is None else printable(name), vote) for name, vote in people]
        self.annotators.update(name for name, _ in people if name is not None)
        if len(people) < 2:
            return
        counts = Counter(vote for _, vote in people)
        self.agreements.append(agreement(counts))
        self.alpha.add(counts)
        for name, vote in people:
            if name is not None:
                self.alike[name] += counts[vote] - 1
                self.compared[name] += len(people) - 1

    def to_dict(self) -> dict[str, Any]:
        """All figures as JSON values; deterministic."""
        chosen, rejected = np.asarray(self.chosen), np.asarray(self.rejected)
        gap = chosen - rejected
        unequal = int((gap != 0).sum())
        return {
            "domains": {name: self.domains[name] for name in DOMAINS if self.domains[name]},
            "strengths": {
                domain: {name: self.strengths[domain, name] for name in STRENGTHS}
                for domain in DOMAINS
                if self.domains[domain]
            },
            "safety_bins": {name: self.bins[name] for name in SAFETY_BINS},
            "safety_bins_llama2": dict(LLAMA2_BINS),
            "categories": _commonest(self.categories),
            "turns": _summary(np.asarray(self.turns)),
            "turn_counts": _counts(np.asarray(self.turns)),
            "prompt_characters": _summary(np.asarray(self.prompt)),
            "chosen_characters": _summary(chosen),
            "rejected_characters": _summary(rejected),
            "length_gap": _summary(gap),
            "length_gap_quantiles": _quantiles(gap),
            "longer_wins": {
                "pairs": unequal,
                "share": _share(int((gap > 0).sum()), unequal),
            },
            "chosen_by": _producers(self.chosen_by),
            "rejected_by": _producers(self.rejected_by),
            "newer_wins": self.newer.to_dict(),
            "annotators": {
                "named": len(self.annotators),
                "busiest": _commonest(self.annotators),
                "voted_pairs": len(self.agreements),
                "agreement": round(float(np.mean(self.agreements)), 4) if self.agreements else None,
                "alpha": self.alpha.value(),
                "voted_unnamed": self.unnamed,
                "agreement_by_name": {
                    name: _share(self.alike[name], self.compared[name])
                    for name in _commonest(self.compared)
                },
            },
            "notes": _commonest(self.notes),
            "rankings": len(self.groups),
        }


def printable(name: str) -> str:
    """A name from a row that nobody has checked, without lone surrogates."""
    return name.encode("utf-8", "backslashreplace").decode()


def _summary(values: np.ndarray) -> dict[str, float | None]:
    if len(values) == 0:
        return {"mean": None, "median": None, "p95": None, "max": None}
    return {
        "mean": round(float(values.mean()), 2),
        "median": float(np.median(values)),
        "p95": float(np.quantile(values, 0.95, method="lower")),
        "max": float(values.max()),
    }


def _counts(turns: np.ndarray, last: int = 6) -> dict[str, int]:
    """Comparisons by user turns; the last entry is "this many or more"."""
    counts = np.bincount(np.minimum(turns, last), minlength=last + 1)
    return {
        f"{number}{'+' if number == last else ''}": int(count)
        for number, count in enumerate(counts)
        if number and len(turns)
    }


def _quantiles(values: np.ndarray) -> dict[str, float]:
    if len(values) == 0:
        return {}
    shares = (5, 25, 50, 75, 95)
    quantiles = np.quantile(values, [share / 100 for share in shares], method="lower")
    return {str(share): float(value) for share, value in zip(shares, quantiles, strict=True)}


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _commonest(counter: Counter[str], limit: int = 50) -> dict[str, int]:
    ordered = sorted(counter.items(), key=lambda entry: (-entry[1], entry[0]))
    return dict(ordered[:limit])


def _producers(counter: Counter[tuple[str, float]]) -> list[dict[str, Any]]:
    ordered = sorted(counter.items(), key=lambda entry: (version_order(entry[0][0]), entry[0][1]))
    return [
        {"version": version, "temperature": temperature, "comparisons": count}
        for (version, temperature), count in ordered[:100]
    ]
