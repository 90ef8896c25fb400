"""Fits the piecewise reward's threshold to held-out answers of known safety.

The safety reward stage writes P(safe) and the label of every held-out answer beside its model. The
stages that combine rewards fit the threshold to these, so that another precision or recall does not
train the model again.
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
    """Write labels and P(safe) of held-out answers, (m,) each, to a stage's directory."""
    rows = {"unsafe": unsafe.astype(int).tolist(), "probability": np.round(probability, 6).tolist()}
    atomic_write_json(stage / LABELLED, rows)


def fitted(config: CombineConfig, stage: Path) -> CombineConfig:
    """`config` with a threshold fitted to `threshold_for`; unchanged if that is not set.

    Raises:
        ConfigError: no held-out answer is labelled unsafe, or the precision is out of reach.
    """
    if config.threshold_for is None:
        return config
    rows = read_json(stage / LABELLED)
    try:
        threshold = fit_threshold(
            np.array(rows["probability"], dtype=np.float64),
            np.array(rows["unsafe"], dtype=bool),
            precision=config.threshold_for.get("precision"),
            recall=config.threshold_for.get("recall"),
        )
    except ValueError as error:
        raise ConfigError(
            f"the threshold cannot be fitted: {error}",
            where="combine.threshold_for",
            remedy="set a lower one, or set combine.threshold by hand",
        ) from None
    # A config may not have a threshold of 1; just below it lies every P(safe) except 1.
    return config.model_copy(update={"threshold": min(threshold.threshold, 1.0 - 1e-9)})
