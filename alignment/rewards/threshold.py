"""The piecewise reward's threshold, fitted to held-out answers of known safety.

The safety reward stage leaves P(safe) and label of every held-out answer beside its model; who
combines rewards fits there, so that changing the wish trains nothing again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alignment.config.rewards import CombineConfig
from alignment.errors import ConfigError
from alignment.rewards.combined import fit_threshold
from alignment.utils.files import atomic_write_json, read_json

LABELLED = "labelled.json"


def write_labelled(stage: Path, unsafe: np.ndarray, probability: np.ndarray) -> None:
    """Keep labels and P(safe) of held-out answers, (m,) each, in a stage's directory."""
    rows = {"unsafe": unsafe.astype(int).tolist(), "probability": np.round(probability, 6).tolist()}
    atomic_write_json(stage / LABELLED, rows)


def fitted(config: CombineConfig, stage: Path) -> CombineConfig:
    """`config` with the threshold that it asks for; itself where it asks for none.

    Args:
        stage: directory of the safety reward stage.

    Raises:
        ConfigError: no held-out answer is labelled unsafe, or the precision is out of reach.
    """
    if config.threshold_for is None:
        return config
    rows = read_json(stage / LABELLED)
    try:
        found = fit_threshold(
            np.array(rows["probability"], dtype=np.float64),
            np.array(rows["unsafe"], dtype=bool),
            precision=config.threshold_for.get("precision"),
            recall=config.threshold_for.get("recall"),
        )
    except ValueError as error:
        raise ConfigError(
            f"the threshold cannot be fitted: {error}",
            where="combine.threshold_for",
            remedy="wish for less, or set combine.threshold by hand",
        ) from None
    # 1 itself is no threshold that a config may have; below it lies every P(safe) but 1.
    return config.model_copy(update={"threshold": min(found.threshold, 1.0 - 1e-9)})
