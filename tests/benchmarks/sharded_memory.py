"""Peak memory of a process when a model is trained whole or in shards.

    python tests/benchmarks/sharded_memory.py [--processes 1 2 4] [--size 135m]

Trains a random reward model on a few short rankings in so many processes, and prints for each count
the resident memory before the model, what weights, gradients and moments take, and the peak, in MB
(the largest of all processes), beside those of one process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from alignment.bench.conditions import peak_rss_mb
from alignment.bench.sizes import SHAPES, make
from alignment.utils import distributed


def child(start: Path, target: Path) -> None:
    """In each process: three steps; the first writes what it measured."""
    from alignment.config.optimizer import OptimizerConfig
    from alignment.models.optimizer import make_optimizer
    from alignment.models.sharding import clip_gradients
    from alignment.rewards.batches import Batcher
    from alignment.rewards.examples import Element, Pair
    from alignment.rewards.initial import initial_model
    from alignment.rewards.train import backward

    torch.set_num_threads(1)
    distributed.join("cpu")
    before = peak_rss_mb()
    model = initial_model(start, target, seed=0, sharded=distributed.size() > 1)
    loaded = peak_rss_mb()
    batcher = Batcher(model.eval(), pad=0, tokens_per_batch=64, max_length=32)
    element = Element(((5, 6, 7, 8), (5, 6, 9)), (Pair(0, 1, 0.0),), (None, None))
    parameters = list(model.parameters())
    optimizer = make_optimizer(parameters, 1e-5, OptimizerConfig())
    for _ in range(3):
        own = [element] * len(distributed.share(4))
        backward(model, own, batcher, batch=4)
        distributed.sum_gradients(parameters)
        clip_gradients(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    held = sum(distributed.local(p).numel() for p in parameters) * 16 / 1e6
    figures = {"before": before, "loaded": loaded, "held": held, "peak": peak_rss_mb()}
    figures = {name: distributed.largest(value) for name, value in figures.items()}
    if distributed.is_first():
        (target / "figures.json").write_text(json.dumps(figures))
    distributed.leave()


def main() -> None:
    """Print a JSON line for each number of processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--size", choices=SHAPES, default="135m")
    parsed = parser.parse_args()
    alone = None
    with tempfile.TemporaryDirectory() as directory:
        make(SHAPES[parsed.size], Path(directory) / "model")
        for count in parsed.processes:
            arguments = ["-m", "alignment.execution.launcher", str(count), "sharded_memory"]
            paths = [str(Path(directory) / "model"), directory]
            here = os.pathsep.join([str(Path(__file__).parent), *sys.path])
            subprocess.run(
                [sys.executable, *arguments, *paths],
                env={**os.environ, "PYTHONPATH": here},
                check=True,
            )
            figures = json.loads((Path(directory) / "figures.json").read_text())
            model = figures["peak"] - figures["before"]
            alone = alone or model
            row = {name: round(value) for name, value in figures.items()}
            print(json.dumps({"processes": count, **row, "share": round(model / alone, 3)}))


if __name__ == "__main__":
    if "RANK" in os.environ:
        child(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        main()
