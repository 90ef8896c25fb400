"""What each process of `test_parallel` does: `python -m parallel_child DIRECTORY`."""

from __future__ import annotations

import sys
from pathlib import Path

from reward_helpers import random_elements, tiny
from safetensors.torch import save_file

from alignment.config.rewards import RewardsConfig
from alignment.models import enough_steps
from alignment.rewards.train import train
from alignment.utils import distributed
from alignment.utils.metrics_log import Series


def work(folder: Path) -> None:
    """Train on 21 rankings of three, so that the last batch is one element for two processes."""
    enough_steps.FEWEST = 1
    folder.mkdir(parents=True, exist_ok=True)
    settings = RewardsConfig(batch=5, learning_rate=1e-3, max_length=64, checkpoint_every=2)
    model = tiny()
    train(
        model,
        random_elements(21, answers=3),
        settings,
        pad=0,
        seed=5,
        checkpoints=folder / "checkpoints",
        series=Series(folder / "series.jsonl") if distributed.is_first() else None,
        auxiliary_weight=0.5,
    )
    name = f"final-{distributed.rank()}.safetensors"
    save_file({n: p.detach() for n, p in model.named_parameters()}, folder / name)


if __name__ == "__main__":
    distributed.join("cpu")
    work(Path(sys.argv[1]))
    distributed.leave()
