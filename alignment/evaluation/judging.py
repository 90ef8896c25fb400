"""Every side against every other, on both axes, by every judge that gives scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import pandas as pd

from alignment.errors import DataError
from alignment.evaluation.responses import AXES, judges_of
from alignment.evaluation.winrate import WinRate, win_rate
from alignment.seeds import derive_seed

Row = dict[str, Any]


def all_win_rates(
    sides: Mapping[str, pd.DataFrame],
    *,
    seed: int,
    tie_margin: float,
    samples: int,
    level: float,
) -> list[Row]:
    """Rows of winrates.json: for each pair of sides, axis and judge the rate of `a` over `b`, `a`
    being the later one.

    Args:
        sides: side → scored answers, in the order of the versions.
    """
    rows: list[Row] = []
    for (name_b, b), (name_a, a) in combinations(sides.items(), 2):
        for judge, axis, rate in _compare(a, b, seed, tie_margin, samples, level):
            rows.append({"a": name_a, "b": name_b, "judge": judge, "axis": axis, **rate.row()})
    return rows


def _compare(
    a: pd.DataFrame, b: pd.DataFrame, seed: int, tie_margin: float, samples: int, level: float
) -> Iterator[tuple[str, str, WinRate]]:
    judges = [judge for judge in judges_of(a) if judge in judges_of(b)]
    for axis in AXES:
        left, right = paired(a[a.domain == axis], b[b.domain == axis])
        if left.empty:
            continue
        for judge in judges:
            yield (
                judge,
                axis,
                win_rate(
                    left[f"{judge}_{axis}"],
                    right[f"{judge}_{axis}"],
                    left.chars,
                    right.chars,
                    # The same resamples of prompts for all pairs: differences between rows are
                    # then not blurred by the bootstrap's own noise.
                    seed=derive_seed(seed, "bootstrap", axis),
                    tie_margin=tie_margin,
                    samples=samples,
                    level=level,
                ),
            )


def paired(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of prompts that both sides answered, in the same order.

    Raises:
        DataError: a prompt stands twice, or the sides share no prompt although both have some.
    """
    left, right = a.set_index("prompt_id"), b.set_index("prompt_id")
    for table in (left, right):
        if table.index.has_duplicates:
            twice = table.index[table.index.duplicated()][0]
            raise DataError(f"evaluation prompt {twice} was answered twice")
    common = left.index.intersection(right.index).sort_values()
    if common.empty and len(left) and len(right):
        raise DataError(
            "two versions were evaluated on different prompts",
            remedy="evaluate the earlier version again with the present prompts",
        )
    return left.loc[common], right.loc[common]


def find_rate(rows: list[Row], a: str, b: str, judge: str, axis: str) -> Row | None:
    """The row for `a` against `b`, turned round if it is stored the other way."""
    for row in rows:
        if (row["judge"], row["axis"]) != (judge, axis):
            continue
        if (row["a"], row["b"]) == (a, b):
            return row
        if (row["a"], row["b"]) == (b, a):
            return turned(row)
    return None


def turned(row: Row) -> Row:
    """The same comparison seen from the other side."""
    new = {**row, "a": row["b"], "b": row["a"], "length_gap": -row["length_gap"]}
    for prefix in ("", "lc_"):
        if f"{prefix}win_rate" in row:
            new[f"{prefix}win_rate"] = 1 - row[f"{prefix}win_rate"]
            new[f"{prefix}low"] = 1 - row[f"{prefix}high"]
            new[f"{prefix}high"] = 1 - row[f"{prefix}low"]
    return new
