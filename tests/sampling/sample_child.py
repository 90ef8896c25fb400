"""The sample stage as a function that a fresh process can run, or one of several:
`python -m sample_child ROOT INPUTS SETTINGS`, both JSON."""

from __future__ import annotations

import json
import sys
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
from alignment.utils import distributed


def run_sample(root: str, inputs: dict[str, str], settings: dict[str, Any]) -> None:
    """Outputs go to `root`/out, shards to `root`/scratch."""
    torch.set_num_threads(1)
    folder = Path(root)
    out = folder / "out" if distributed.is_first() else folder / "scratch" / "out-other"
    for path in (out, folder / "scratch"):
        path.mkdir(parents=True, exist_ok=True)
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
            out=out,
            scratch=folder / "scratch",
            seed=11,
            workspace=folder,
        )
    )


if __name__ == "__main__":
    distributed.join("cpu")
    run_sample(sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3]))
    distributed.leave()
