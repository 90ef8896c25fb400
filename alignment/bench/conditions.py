"""The conditions of a measurement, which every line of `align bench` states."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from alignment.config.compute import FastCPU
from alignment.fastpath import choices, choosing
from alignment.models.checkpoint_files import stored_parameters
from alignment.utils.processor import processor


def under(
    fast_cpu: FastCPU, run: Callable[..., Mapping[str, Any]], *, model: Path, **options: Any
) -> dict[str, Any]:
    """The figures of `run` on a model, with the conditions of the measurement."""
    with choosing(fast_cpu):
        figures = run(model=model, **options)
        return {
            **figures,
            "parameters": stored_parameters(model),
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "fast_cpu": fast_cpu,
            "passes": choices(),
        }


def peak_rss_mb() -> float:
    """Highest resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
