"""Statistics of a version's answers that show collapse and reward hacking."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

Gram = tuple[str, ...]
_WORD = re.compile(r"\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """Lower-case words and punctuation marks, in any script that `\\w` covers."""
    return _WORD.findall(text.lower())


def grams(tokens: Sequence[str], n: int) -> list[Gram]:
    """All runs of `n` tokens, in order."""
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def distinct_n(texts: Iterable[str], n: int) -> float:
    """Distinct n-grams over all n-grams of all texts (Li et al. 2016, arXiv 1510.03055).

    NaN if no text has `n` words. Falls with the amount of text: compare equal numbers of answers.
    """
    counts: Counter[Gram] = Counter()
    for text in texts:
        counts.update(grams(words(text), n))
    total = counts.total()
    return len(counts) / total if total else math.nan


def repeated_share(texts: Iterable[str], n: int = 4) -> float:
    """Mean over texts of the share of n-grams that occurred earlier in the same text.

    0 without repetition, near 1 for a text that loops. Texts of fewer than `n` words are left out;
    NaN if none remains.
    """
    shares = []
    for text in texts:
        ngrams = grams(words(text), n)
        if ngrams:
            shares.append(1 - len(set(ngrams)) / len(ngrams))
    return sum(shares) / len(shares) if shares else math.nan


def self_bleu(texts: Sequence[str], n: int = 4) -> float:
    """Mean BLEU of each text against all the others (Zhu et al. 2018, arXiv 1802.01886).

    1 when all texts are the same, near 0 when they share nothing. BLEU has uniform weights over
    1…n-grams, the brevity penalty of the closest reference, and counts of orders above 1 smoothed
    by +1 (Lin & Och 2004), because short texts have few 4-grams.

    Texts without a word are left out; NaN if fewer than two remain. Linear in the amount of text:
    the clipped count of an n-gram needs its highest count among the others only, so the two highest
    counts are kept.
    """
    tokens = [tokenised for tokenised in (words(text) for text in texts) if tokenised]
    if len(tokens) < 2:
        return math.nan
    counted = [[Counter(grams(text, order)) for order in range(1, n + 1)] for text in tokens]
    highest = [_two_highest(text[order] for text in counted) for order in range(n)]
    lengths = Counter(len(text) for text in tokens)
    scores = []
    for text, counts in zip(tokens, counted, strict=True):
        logs = []
        for order in range(n):
            total = counts[order].total()
            if total == 0:
                continue
            matched = 0
            for gram, count in counts[order].items():
                first, second = highest[order][gram]
                matched += min(count, second if count == first else first)
            smooth = 1 if order else 0
            precision = (matched + smooth) / (total + smooth)
            logs.append(math.log(precision) if precision > 0 else -math.inf)
        closest = _closest(len(text), lengths)
        brevity = min(0.0, 1 - closest / len(text))
        scores.append(math.exp(brevity + sum(logs) / len(logs)))
    return sum(scores) / len(scores)


def _two_highest(counters: Iterable[Counter[Gram]]) -> dict[Gram, tuple[int, int]]:
    """For each n-gram its highest count in a text and the second highest, in another text."""
    highest: dict[Gram, tuple[int, int]] = {}
    for counter in counters:
        for gram, count in counter.items():
            first, second = highest.get(gram, (0, 0))
            if count > first:
                highest[gram] = (count, first)
            elif count > second:
                highest[gram] = (first, count)
    return highest


def _closest(length: int, lengths: Counter[int]) -> int:
    """The length nearest to `length` among the other texts; the shorter of two equally near."""
    others = [other for other, count in lengths.items() if other != length or count > 1]
    return min(others, key=lambda other: (abs(other - length), other))
