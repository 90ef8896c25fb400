"""The reward stage, alone or as one of several processes.

`python -m reward_stage_child ROOT INPUTS NAMES`: outputs go to ROOT/NAME/out. INPUTS is JSON,
name → directory; NAMES are among `SETTINGS`, joined by commas.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from test_reward_stage import Store, fill_store

import alignment.stages.reward as stage
from alignment.config.compute import ComputeConfig
from alignment.config.lora import LoraConfig
from alignment.config.rewards import RewardsConfig
from alignment.stages.context import StageContext
from alignment.utils import distributed

SETTINGS: dict[str, dict[str, Any]] = {"full": {}, "lora": {"lora": LoraConfig(r=8)}, "split": {}}


def work(root: Path, inputs: dict[str, Path], name: str) -> None:
    """Train and measure a safety model."""
    options: dict[str, Any] = {"batch": 16, "max_length": 64, "max_tokens_per_micro_batch": 128}
    sharding: Any = "full" if name == "split" and distributed.size() > 1 else "none"
    config: Any = SimpleNamespace(
        rewards=RewardsConfig(learning_rate=3e-3, **options, **SETTINGS[name]),
        compute=ComputeConfig(device="cpu", processes=2, sharding=sharding),
    )
    rank, scratch = distributed.rank(), root / name / "scratch"
    out = scratch / f"out-{rank}" if rank else root / name / "out"
    out.mkdir(parents=True)
    scratch.mkdir(exist_ok=True)
    ctx = StageContext(
        *("rlhf-v2", "reward_safety", config, {"domain": "safety"}, inputs),
        *(out, scratch, 11, root),
    )
    stage.run(ctx)
    ctx.write_notes()


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.join("cpu")
    stage.PreferenceStore = Store  # type: ignore[misc,assignment]
    fill_store()
    given = {name: Path(path) for name, path in json.loads(sys.argv[2]).items()}
    for each in sys.argv[3].split(","):
        work(Path(sys.argv[1]), given, each)
    distributed.leave()
