"""Win rates between all pairs of sides, on both axes, by every judge that gives scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from alignment.config.vocabulary import DOMAINS
from alignment.errors import DataError
from alignment.evaluation.responses import judges_of, subject_numbers
from alignment.evaluation.winrate import outcomes, win_rate
from alignment.rewards.cut_answers import floored

Row = dict[str, Any]

REWARD_MODELS = ("rm", "guard")
"""Judges that may like a missing end; gold scores and language models judge what is there."""
CLIMBED = "rm"
"""The judge that training climbed; every other one is independent of it."""
ALONE = "No independent judge: the reward models that training climbed decide alone"


@dataclass(frozen=True)
class _Axis:
    """One side's answers to the prompts of one axis, by prompt id."""

    prompts: NDArray[np.str_]
    chars: NDArray[np.float64]
    scores: dict[str, NDArray[np.float64]]
    subjects: NDArray[np.int_] | None
    finished: NDArray[np.bool_]

    @classmethod
    def of(cls, table: pd.DataFrame, axis: str, judges: list[str]) -> _Axis:
        rows = by_prompt(table[table.domain == axis])
        return cls(
            np.asarray(rows.index, dtype=str),
            rows.chars.to_numpy(float),
            {judge: rows[f"{judge}_{axis}"].to_numpy(float) for judge in judges},
            subject_numbers(rows),
            rows.finished.to_numpy(bool),
        )

    def at(self, prompts: NDArray[np.str_]) -> _Axis:
        """The answers to `prompts` only, all of which it must have."""
        if len(prompts) == len(self.prompts):
            return self
        where = np.searchsorted(self.prompts, prompts)
        scores = {judge: values[where] for judge, values in self.scores.items()}
        subjects = None if self.subjects is None else self.subjects[where]
        return _Axis(prompts, self.chars[where], scores, subjects, self.finished[where])

    def against(self, other: _Axis, judge: str) -> NDArray[np.float64]:
        """`outcomes` of its answers against another side's to the same prompts. To a reward model a
        cut answer is worth no more than the one beside it that ended."""
        scores = np.stack([self.scores[judge], other.scores[judge]], axis=-1)
        if judge in REWARD_MODELS:
            scores = floored(scores, np.stack([self.finished, other.finished], axis=-1))
        return outcomes(scores[:, 0], scores[:, 1])


def all_win_rates(sides: Mapping[str, pd.DataFrame]) -> list[Row]:
    """Rows of winrates.json: the win rate of `a`, the later side, over `b` for each pair of sides,
    axis and judge.

    Args:
        sides: side → scored answers, in the order of the versions.

    Raises:
        DataError: two sides answered different prompts.
    """
    tables = {
        (side, axis): _Axis.of(table, axis, judges_of(table))
        for side, table in sides.items()
        for axis in DOMAINS
    }
    rows: list[Row] = []
    for (b, a), axis in product(combinations(sides, 2), DOMAINS):
        left, right = tables[a, axis], tables[b, axis]
        common = _common(left.prompts, right.prompts)
        if not len(common):
            continue
        left, right = left.at(common), right.at(common)
        for judge in (name for name in left.scores if name in right.scores):
            rate = win_rate(
                left.against(right, judge),
                left.chars,
                right.chars,
                subjects=left.subjects,
            )
            rows.append({"a": a, "b": b, "judge": judge, "axis": axis, **rate.row()})
    return rows


def by_prompt(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with prompt ids as sorted index.

    Raises:
        DataError: a prompt was answered twice.
    """
    rows = table.set_index("prompt_id").sort_index()
    if rows.index.has_duplicates:
        twice = rows.index[rows.index.duplicated()][0]
        raise DataError(f"evaluation prompt {twice} was answered twice")
    return rows


def _common(left: NDArray[np.str_], right: NDArray[np.str_]) -> NDArray[np.str_]:
    if np.array_equal(left, right):
        return left
    common = np.intersect1d(left, right)
    if not len(common) and len(left) and len(right):
        raise DataError(
            "two versions were evaluated on different prompts",
            remedy="evaluate the earlier version again with the present prompts",
        )
    return common


def find_rate(rows: list[Row], a: str, b: str, judge: str, axis: str) -> Row | None:
    """The row for `a` against `b` by a judge on an axis, reversed if it is stored as `b` against
    `a`; None if there is none."""
    for row in rows:
        if (row["judge"], row["axis"]) != (judge, axis):
            continue
        if (row["a"], row["b"]) == (a, b):
            return row
        if (row["a"], row["b"]) == (b, a):
            return turned(row)
    return None


def turned(row: Row) -> Row:
    """The row with its sides swapped; a figure that is missing or null stays so."""
    new = {**row, "a": row["b"], "b": row["a"]}
    if (gap := row.get("length_gap")) is not None:
        new["length_gap"] = -gap
    if "length_ratio" in row:
        new["length_ratio"] = 1 / row["length_ratio"] if row["length_ratio"] else None
    for prefix, (name, opposite) in product(
        ("", "lc_"), (("win_rate", "win_rate"), ("low", "high"), ("high", "low"))
    ):
        value = row.get(f"{prefix}{opposite}")
        if value is not None:
            new[f"{prefix}{name}"] = 1 - value
        elif f"{prefix}{name}" in new:
            new[f"{prefix}{name}"] = None
    return new
