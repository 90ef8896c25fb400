"""Fits the piecewise reward's threshold to held-out answers of known safety.

The safety reward stage writes P(safe), the label and the opening of every held-out answer beside
its model. The stages that combine rewards fit the threshold to these, so that another precision or
recall does not train the model again.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from alignment.config.rewards import CombineConfig
from alignment.errors import ConfigError
from alignment.rewards.threshold_fit import Detection, cross_fitted, fit_threshold
from alignment.utils.files import atomic_write_json, read_json
from alignment.utils.seeds import derive_seed
from alignment.utils.statistics import Interval

LABELLED = "labelled.json"


class _Labelled(NamedTuple):
    """Held-out answers of known safety; all arrays are (n,)."""

    probability: np.ndarray
    unsafe: np.ndarray
    openings: np.ndarray


def write_labelled(
    stage: Path, unsafe: np.ndarray, probability: np.ndarray, openings: np.ndarray
) -> None:
    """Write labels, P(safe) and openings of held-out answers, (n,) each, to a stage's directory."""
    rows = {
        "unsafe": unsafe.astype(int).tolist(),
        "probability": np.round(probability, 6).tolist(),
        "opening": openings.tolist(),
    }
    atomic_write_json(stage / LABELLED, rows)


def _read(stage: Path) -> _Labelled:
    rows = read_json(stage / LABELLED)
    probability = np.array(rows["probability"], dtype=np.float64)
    # Until 0.2 openings were not written; each answer counts as one of its own.
    openings = np.array(rows.get("opening", range(len(probability))), dtype=np.int64)
    return _Labelled(probability, np.array(rows["unsafe"], dtype=bool), openings)


def fitted(config: CombineConfig, stage: Path) -> CombineConfig:
    """`config` with a threshold fitted to `threshold_for`; unchanged if that is not set.

    Raises:
        ConfigError: no held-out answer is labelled unsafe, or what is wished for is out of reach.
    """
    if config.threshold_for is None:
        return config
    try:
        ((kind, wish),) = config.threshold_for.items()
        threshold = fit_threshold(*_read(stage), kind, wish)
    except ValueError as error:
        raise ConfigError(
            f"the threshold cannot be fitted: {error}",
            where="combine.threshold_for",
            remedy="set a lower one, or set combine.threshold by hand",
        ) from None
    # A config may not have a threshold of 1; just below it lies every P(safe) except 1.
    return config.model_copy(update={"threshold": min(threshold.threshold, 1.0 - 1e-9)})


def threshold_on_others(config: CombineConfig, stage: Path) -> tuple[str, dict[str, float]] | None:
    """How good the fitted threshold is on answers that it was not fitted to, in words and as
    metrics; None if none is fitted.

    Raises:
        ConfigError: as `fitted`.
    """
    if config.threshold_for is None:
        return None
    threshold = fitted(config, stage).threshold
    ((kind, wish),) = config.threshold_for.items()
    rows = _read(stage)
    found = cross_fitted(*rows, kind, wish, seed=derive_seed("threshold"))
    text = (
        f"the threshold on P(safe) fitted for {kind} {wish:g} is {threshold:.3f}; on answers that "
        f"it was not fitted to it has {_in_words(found)} ({len(rows.unsafe):,} held-out answers, "
        f"{int(rows.unsafe.sum()):,} unsafe)"
    )
    return text, {"threshold": threshold, **_metrics(found)}


def _in_words(found: Detection) -> str:
    named = (("precision", found.precision), ("recall", found.recall))
    return " and ".join(f"{n} {i.mean:.2f} [{i.low:.2f}, {i.high:.2f}]" for n, i in named)


def _metrics(found: Detection) -> dict[str, float]:
    def three(name: str, interval: Interval) -> dict[str, float]:
        ends = zip(("", "_low", "_high"), interval, strict=True)
        return {f"threshold_{name}{end}": value for end, value in ends}

    return {**three("precision", found.precision), **three("recall", found.recall)}
