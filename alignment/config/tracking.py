"""Where the history of a program is kept for people to look at."""

from __future__ import annotations

from pydantic import Field

from alignment.config.section import Section


class TrackingConfig(Section):
    """MLflow: the memory of the program. It can be rebuilt from the ledger, which is the truth."""

    enabled: bool = True
    """Write runs, metrics, datasets and models to MLflow."""
    uri: str | None = None
    """Tracking store. Unset: `MLFLOW_TRACKING_URI`, else `mlflow.db` in the workspace."""
    experiment: str | None = Field(default=None, min_length=1)
    """Name of the MLflow experiment. Unset: the program's name."""
    registry: bool = True
    """Register policies and reward models (by reference: weights are never copied)."""
    artifact_mb: float = Field(default=4.0, ge=0)
    """Pictures, tables and reports up to this size (MB) are copied to their run, never weights."""
    live_seconds: float = Field(default=20.0, ge=1)
    """How often the curves of a running stage are sent to MLflow."""
