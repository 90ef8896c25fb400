"""Where the history of a program is kept for people to look at."""

from __future__ import annotations

from pydantic import Field, field_validator

from alignment.config.location import written_out
from alignment.config.section import Section
from alignment.errors import redact


class TrackingConfig(Section):
    """MLflow: the memory of the program. It can be rebuilt from the ledger, which is the truth."""

    enabled: bool = True
    """Write runs, metrics, datasets and models to MLflow."""
    uri: str | None = None
    """Tracking store. Unset: `MLFLOW_TRACKING_URI`, else `mlflow.db` in the workspace. No password
    may stand in it: the configuration is kept in the workspace and in MLflow."""
    experiment: str | None = Field(default=None, min_length=1)
    """Name of the MLflow experiment. Unset: the program's name."""
    registry: bool = True
    """Register policies and reward models (by reference: weights are never copied)."""

    @field_validator("uri")
    @classmethod
    def _no_password(cls, uri: str | None) -> str | None:
        if uri is None:
            return None
        if redact(uri) != uri:
            raise ValueError(
                "a password must not stand in a file: leave the key out and give the address by "
                "the environment variable MLFLOW_TRACKING_URI"
            )
        return written_out(uri)


class CostConfig(Section):
    """What a version's work is said to have cost: device power × time × carbon intensity, as Llama
    2 §2.2.1 and Table 2 reckon it. Views only: no result depends on it."""

    device_watts: float = Field(default=65.0, gt=0)
    """Power of the devices that a stage uses, together, in watts. 65 is the rated power of a usual
    desktop processor; an A100-80GB has 400 (Llama 2, Table 2), an H100 SXM 700 (their makers'
    data sheets)."""
    overhead: float = Field(default=1.0, ge=1)
    """Power of the whole building over that of the devices (PUE); 1 leaves cooling out."""
    co2_grams_per_kwh: float = Field(default=423.0, ge=0)
    """Carbon intensity of the electricity. 423 is what Llama 2's Table 2 comes to: 31.22 t for
    184,320 hours at 400 W. Electricity companies publish theirs."""
