"""The table of a version's answers to the evaluation prompts, and their scores.

One row per answer. A *side* takes part in comparisons: a version (`rlhf-v3`), another arm of one
(`rlhf-v5/no_ppo` before PPO, `rlhf-v3/student` for the smaller model) or, in the built-in world,
one answer to every prompt (`constant/polite`). Columns of responses.parquet:

    side, version, arm, prompt_id, domain, category, borderline, text, n_tokens, finished, refused,
    subject, logprob, entropy and, in the built-in world, gold_helpfulness, gold_safety and harmful

scores.parquet has the rows of every side so far, without texts. Its `<judge>_<axis>` columns come
from the judges of the newest version, because scores of different reward models are not comparable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from alignment.config.vocabulary import version_order
from alignment.errors import DataError

FINAL = "final"
NO_PPO = "no_ppo"
STUDENT = "student"
CONSTANT = "constant"
TEXTS = "responses.parquet"
SCORES = "scores.parquet"


def side_name(version: str, arm: str = FINAL) -> str:
    """`rlhf-v5` for the final arm, `rlhf-v5/no_ppo` for another."""
    return version if arm == FINAL else f"{version}/{arm}"


def side_title(side: str) -> str:
    """The title of a side in reports: `rlhf-v5 (no PPO)`."""
    version, _, arm = side.partition("/")
    if version == CONSTANT:
        return f"always {arm}"
    named = {NO_PPO: "no PPO", STUDENT: "student"}
    return f"{version} ({named[arm]})" if arm in named else side


def is_student(side: str) -> bool:
    """Whether the side is the student, the smaller model trained beside the policies."""
    return side.endswith(f"/{STUDENT}")


def is_constant(side: str) -> bool:
    """Whether the side is no policy but one answer to every prompt."""
    return side.partition("/")[0] == CONSTANT


def side_order(side: str) -> tuple[int, int, str, int]:
    """Sort key of sides: by version, then no PPO, final, student; constants come last."""
    version, _, arm = side.partition("/")
    return (*version_order(version), {NO_PPO: 0, "": 1}.get(arm, 2))


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write parquet; equal rows give equal bytes."""
    table.reset_index(drop=True).to_parquet(path, engine="pyarrow", compression="zstd", index=False)


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of this module.

    Raises:
        DataError: the file is missing or is not parquet.
    """
    try:
        return pd.read_parquet(path, engine="pyarrow")
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read the answers of an evaluation: {error}", where=str(path)
        ) from None


def read_sides(directories: Mapping[str, Path]) -> dict[str, pd.DataFrame]:
    """The answers of every side in the `evaluate` directories of versions, in order."""
    tables = [read_table(path / TEXTS) for _, path in sorted(directories.items())]
    return split_sides(tables)


def split_sides(tables: Iterable[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Side → its rows."""
    sides: dict[str, pd.DataFrame] = {}
    for table in tables:
        for side, rows in table.groupby("side", sort=False):
            sides[str(side)] = rows.reset_index(drop=True)
    return dict(sorted(sides.items(), key=lambda item: side_order(item[0])))


def subject_numbers(table: pd.DataFrame) -> NDArray[np.int_] | None:
    """(n,) numbers of the subjects that the prompts ask about: what has one number is not
    independent. None where each prompt stands for itself: in real data of an older release."""
    if "subject" not in table:
        return None
    numbers: NDArray[np.int_] = pd.factorize(table.subject)[0]
    return numbers


def judges_of(table: pd.DataFrame) -> list[str]:
    """Judges with scores on both axes, the primary one first: gold, then RM, then others."""
    judges = [
        name.removesuffix("_helpfulness")
        for name in table.columns
        if name.endswith("_helpfulness") and f"{name.removesuffix('_helpfulness')}_safety" in table
    ]
    first = [name for name in ("gold", "rm") if name in judges]
    return first + sorted(set(judges) - set(first))
