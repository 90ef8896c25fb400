"""The sample stage as a function that a fresh process can run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from alignment.config.compute import ComputeConfig
from alignment.config.inference import InferenceConfig
from alignment.config.rewards import CombineConfig
from alignment.config.sampling import SampleConfig
from alignment.stages import sample
from alignment.stages.context import StageContext


def run_sample(root: str, inputs: dict[str, str], settings: dict[str, Any]) -> None:
    """Outputs go to `root`/out, shards to `root`/scratch."""
    torch.set_num_threads(1)
    folder = Path(root)
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    config = SimpleNamespace(
        sample=SampleConfig(**settings),
        combine=CombineConfig(),
        compute=ComputeConfig(device="cpu"),
        inference=InferenceConfig(),
    )
    sample.run(
        StageContext(
            version="rlhf-v1",
            stage="sample",
            config=config,  # type: ignore[arg-type]
            options={},
            inputs={name: Path(path) for name, path in inputs.items()},
            out=folder / "out",
            scratch=folder / "scratch",
            seed=11,
            workspace=folder,
        )
    )
