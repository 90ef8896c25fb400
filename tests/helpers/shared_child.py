"""Samples, selects, collects and evaluates, alone or as one of several processes.

`python -m shared_child ROOT INPUTS`: once with whole reward models, in ROOT/none, and once with
sharded ones, in ROOT/full. Outputs go to STAGE/out there, and dealt-RANK.json says how many pieces
of work this process got in each stage. INPUTS is JSON, name → directory.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

from alignment.config.compute import ComputeConfig
from alignment.config.evaluate import EvaluateConfig
from alignment.config.generation import GenerationConfig
from alignment.config.inference import InferenceConfig
from alignment.config.rewards import CombineConfig
from alignment.config.sampling import CollectConfig, SampleConfig, SelectConfig
from alignment.inference.engine import TransformersEngine
from alignment.inference.engine_factory import Opened
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.load import load_policy, load_tokenizer
from alignment.stages import collect, evaluate, sample, select
from alignment.stages.context import StageContext
from alignment.utils import distributed
from alignment.utils.files import atomic_write_json

SHORT = GenerationConfig(max_new_tokens=12)


def context(root: Path, stage: str, inputs: dict[str, Path], sharding: str) -> StageContext:
    """As the runner makes it: other processes than the first have an `out` of their own."""
    config: Any = SimpleNamespace(
        base=SimpleNamespace(source="path"),
        combine=CombineConfig(),
        compute=ComputeConfig(device="cpu", processes=2, sharding=sharding),
        inference=InferenceConfig(),
        sample=SampleConfig(prompts=10, k=4, generation=SHORT, shard_prompts=3, search_prompts=4),
        select=SelectConfig(finished_only=False, safety_threshold=None),
        collect=CollectConfig(pairs=12, generation=SHORT),
        evaluate=EvaluateConfig(
            generation=SHORT,
            bootstrap_samples=100,
            checkpoint_every=4,
            max_tokens_per_micro_batch=64,
        ),
    )
    rank = distributed.rank()
    scratch = root / stage / "scratch"
    out = scratch / f"out-{rank}" if rank else root / stage / "out"
    out.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(parents=True, exist_ok=True)
    options = {"earlier_version": "sft"} if stage == "collect" else {}
    return StageContext("rlhf-v1", stage, config, options, inputs, out, scratch, 11, root)


def work(root: Path, inputs: dict[str, Path], sharding: str = "none") -> None:
    """Run the stages one after another, on each other's outputs."""
    given, dealt = dict(inputs), {}
    real = distributed.deal
    for module in (sample, select, collect, evaluate):
        name = module.__name__.rpartition(".")[2]
        counts: list[int] = []

        def deal(items: Any, counts: list[int] = counts) -> Any:
            counts.append(len(real(items)))
            return real(items)

        with patch.object(distributed, "deal", deal):
            ctx = context(root, name, given, sharding)
            module.run(ctx)
            ctx.write_notes()
        given[name] = ctx.first_out
        dealt[name] = sum(counts)
        distributed.barrier()
    atomic_write_json(root / f"dealt-{distributed.rank()}.json", dealt)


@contextmanager
def served(model: Path, *_: Any, **__: Any) -> Iterator[Opened]:
    """Our own loop in the first process, as a server: nobody gets the model."""
    policy, renderer = load_policy(model), ChatRenderer(load_tokenizer(model), 64)
    engine = TransformersEngine(policy, renderer)
    if not distributed.is_first():
        engine.sample = None  # type: ignore[method-assign,assignment]  # to call it would fail
    yield Opened(engine, renderer, None)


def evaluate_served(root: Path, inputs: dict[str, Path]) -> None:
    """Evaluate with answers of a server, and models that no process may load whole."""
    ctx = context(root, "evaluate", inputs, "full")
    with (
        patch("alignment.stages.policy_engine.open_engine", served),
        patch("alignment.evaluation.answering.load_policy", None),
    ):
        evaluate.run(ctx)
    ctx.write_notes()
    distributed.barrier()


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.join("cpu")
    given = {name: Path(path) for name, path in json.loads(sys.argv[2]).items()}
    for sharding in ("none", "full"):
        work(Path(sys.argv[1]) / sharding, given, sharding)
    evaluate_served(Path(sys.argv[1]) / "served", given)
    distributed.leave()
