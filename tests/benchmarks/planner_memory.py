"""Measured memory of each training stage beside what `align plan` says, on a CPU.

    python tests/benchmarks/planner_memory.py [--sizes 260k 20m] [--processes 1 2 4] [--stages ppo]

Trains a random Llama with tied embeddings in so many processes, sharded where they are several,
and prints for each stage, size and number the planner's bytes of a process, by part, and the rise
of the resident memory from just before the model is loaded to its peak, in MB: that of the process
with most. What the C library keeps of freed memory is not in it, unless `--heap` is given.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from alignment.bench.sizes import SHAPES, make
from alignment.config.load import check_program
from alignment.config.program import ProgramConfig
from alignment.config.vocabulary import DOMAINS
from alignment.models import enough_steps
from alignment.models.chat_renderer import ChatRenderer, Message
from alignment.models.load import load_scalar, load_tokenizer
from alignment.pipeline.hardware import Place
from alignment.pipeline.node import Node
from alignment.pipeline.stage_memory import need
from alignment.rewards.card import RewardCard
from alignment.rewards.model import RewardModel
from alignment.utils import distributed
from alignment.utils.memory import give_back
from alignment.utils.metrics_log import Series

SIZES = {
    **{size: SHAPES[size] for size in ("260k", "135m")},
    # Of docs/scale.md's table.
    "20m": {
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_hidden_layers": 8,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "vocab_size": 16000,
    },
}
TOKENS = {"260k": 512, "20m": 512, "135m": 256}
"""Of a micro-batch: few for the large, so that the model dominates."""
WINDOW = 128
HELD = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_MMAP_MAX_": "1000000"}
"""Has glibc return every large block when it is freed. Otherwise its heap keeps those under 32 MB,
which are all of such small models', in pieces that often fit no other."""
CPU = Place("the CPU", 0.0)
NODES = {
    "finetune": Node("sft", "finetune", "finetune"),
    "reward": Node("rlhf-v1", "reward_helpfulness", "reward"),
    "ppo": Node("rlhf-v5", "ppo", "ppo"),
}


def program(model: Path, size: str, processes: int) -> ProgramConfig:
    """The settings that are planned and trained with."""
    tokens = TOKENS[size]
    tuned = {
        "batch": processes * tokens // WINDOW,
        "per_device_train_batch_size": tokens // WINDOW,
        "max_length": WINDOW,
        "epochs": 1,
    }
    return check_program(
        {
            "name": "memory",
            "workspace": str(model.parent / "workspace"),
            "base": {"source": "path", "path": str(model)},
            "intake": {"source": "inbox"},
            "compute": {
                "device": "cpu",
                "threads": 1,
                "fast_cpu": "off",
                "processes": processes,
                "sharding": "full" if processes > 1 else "none",
            },
            "finetune": {"sft": tuned},
            "rewards": {
                "batch": processes * tokens // 64,
                "max_length": 64,
                "max_tokens_per_micro_batch": tokens,
            },
            "ppo": {
                "iterations": 1,
                "epochs": 1,
                "episodes": 2 * processes * tokens // WINDOW,
                "minibatch": processes * tokens // WINDOW,
                "max_tokens_per_micro_batch": tokens,
                "generation": {"max_new_tokens": 64, "generation_batch_size": 8},
                "stop": {"look_every": 0, "kl_limit": None},
            },
        }
    )


def inputs(size: str, target: Path) -> Path:
    """A policy and two reward models."""
    model = target / "model"
    make(SIZES[size], model)
    for number, domain in enumerate(DOMAINS):
        torch.manual_seed(number)
        scalar = RewardModel(load_scalar(model), load_tokenizer(model), RewardCard(domain))
        scalar.save(target / domain / "model")
    return model


def finetune(settings: ProgramConfig, model: Path, target: Path) -> None:
    """Windows full of tokens, two steps."""
    from alignment.training.policy import save_policy, trainable_policy
    from alignment.training.sft import Example
    from alignment.training.sft import finetune as train

    recipe = settings.finetune.sft
    tokenizer = load_tokenizer(model)
    trained = trainable_policy(model, None, sharded=distributed.size() > 1)
    renderer = ChatRenderer(tokenizer)
    asked: list[Message] = [{"role": "user", "content": "tell me a story"}]
    room, text = WINDOW - len(renderer.prompt(asked)), "once"
    while len(renderer.response(f"{text} upon a time")) <= room:
        text += " upon a time"
    train(
        trained,
        renderer,
        [Example(asked, text)] * (2 * recipe.batch),
        recipe,
        seed=0,
        scratch=target / "scratch",
        series=Series(target / "series.jsonl"),
    )
    save_policy(trained, tokenizer, target / "trained", start=model)


def reward(settings: ProgramConfig, model: Path, target: Path) -> None:
    """Pairs without a common beginning, two steps."""
    from alignment.models.sharding import gather, is_sharded
    from alignment.rewards.examples import Element, Pair
    from alignment.rewards.initial import initial_model
    from alignment.rewards.train import train

    scalar = initial_model(model, target, seed=0, sharded=distributed.size() > 1)
    sides = [tuple(5 + (side + 7 * n) % 400 for n in range(64)) for side in range(2)]
    element = Element((sides[0], sides[1]), (Pair(0, 1, 0.0),), (None, None))
    train(
        scalar,
        [element] * (2 * settings.rewards.batch),
        settings.rewards,
        pad=0,
        seed=0,
        checkpoints=target / "checkpoints",
    )
    if is_sharded(scalar):
        gather(scalar)


def ppo(settings: ProgramConfig, model: Path, target: Path) -> None:
    """All five roles, two steps."""
    from alignment.bench.ppo import openings
    from alignment.training.ppo.scoring import PromptItem
    from alignment.training.ppo.setup import Builder
    from alignment.training.ppo.trainer import PPOTrainer

    stages = {domain: target.parent / domain for domain in DOMAINS}
    place, several = torch.device("cpu"), distributed.size() > 1
    build = Builder(model, stages, settings.ppo, "float32", place, 0, print, several)
    roles = build.roles()
    tokenizer = load_tokenizer(model)
    renderer = ChatRenderer(tokenizer)
    rows = openings(tokenizer, settings.ppo.episodes)
    trainer = PPOTrainer(
        roles,
        renderer,
        [PromptItem(tuple(ids)) for ids in rows],
        build.reward(settings.combine, renderer),
        settings.ppo,
        seed=0,
        ends=(),
    )
    trainer.train()
    build.final()


WORK: dict[str, Callable[[ProgramConfig, Path, Path], None]] = {
    "finetune": finetune,
    "reward": reward,
    "ppo": ppo,
}


def resident(name: str = "VmRSS") -> float:
    """MB of this process, now or (`VmHWM`) at its highest."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return float(line.split()[1]) * 1024 / 1e6
    raise LookupError(name)


def child(stage: str, size: str, model: Path, target: Path) -> None:
    """In each process: train a tiny model, so that all code is loaded, then the one to measure; the
    first writes what the largest took."""
    import datasets
    import peft
    import trl

    from alignment.fastpath import choosing

    _ = (datasets.Dataset, peft.PeftModel, trl.SFTTrainer, trl.SFTConfig)  # loaded now, not later
    torch.set_num_threads(1)
    distributed.join("cpu")
    enough_steps.FEWEST = 1
    tiny = target.parent / "tiny" / "model"
    with choosing("off"):
        WORK[stage](program(tiny, "260k", distributed.size()), tiny, tiny.parent / "scratch")
        give_back()
        before = resident()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        WORK[stage](program(model, size, distributed.size()), model, target)
    peak = distributed.largest(resident("VmHWM") - before)
    if distributed.is_first():
        (target / "figures.json").write_text(json.dumps({"peak": peak}))
    distributed.leave()


def measured(
    stage: str, size: str, processes: int, model: Path, home: Path, *, heap: bool
) -> float:
    """MB of the process with most; with what the C library's heap keeps of freed blocks, or not."""
    warm = home / "tiny" / "scratch"
    shutil.rmtree(warm, ignore_errors=True)
    warm.mkdir()
    with tempfile.TemporaryDirectory(dir=home) as directory:
        launched = ["alignment.execution.launcher", str(processes)] if processes > 1 else []
        here = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        words = [*launched, "planner_memory", "child", stage, size, str(model), directory]
        subprocess.run(
            [sys.executable, "-m", *words],
            env={**os.environ, "PYTHONPATH": here, **({} if heap else HELD)},
            stdout=sys.stderr,
            check=True,
        )
        found: dict[str, Any] = json.loads((Path(directory) / "figures.json").read_text())
    return float(found["peak"])


def main() -> None:
    """Print a JSON line for each stage, size and number of processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", choices=sorted(SIZES), nargs="+", default=["260k", "20m"])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--heap", action="store_true", help="leave the C library's heap as it is")
    parser.add_argument("--stages", choices=sorted(NODES), nargs="+", default=list(NODES))
    parsed = parser.parse_args()
    for size in parsed.sizes:
        with tempfile.TemporaryDirectory() as directory:
            home = Path(directory)
            model = inputs(size, home)
            inputs("260k", home / "tiny")
            for stage in parsed.stages:
                for processes in parsed.processes:
                    settings = program(model, size, processes)
                    planned = need(NODES[stage], settings, CPU)
                    assert planned is not None
                    found = measured(stage, size, processes, model, home, heap=parsed.heap)
                    row = {
                        "stage": stage,
                        "size": size,
                        "processes": processes,
                        "planned": round(planned.total / 1e6),
                        "measured": round(found),
                        "ratio": round(planned.total / 1e6 / found, 2),
                        "parts": {name: round(part / 1e6) for name, part in planned.parts.items()},
                    }
                    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2], sys.argv[3], Path(sys.argv[4]), Path(sys.argv[5]))
    else:
        main()
