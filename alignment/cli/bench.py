"""`align bench`: speed and memory, one JSON line each."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from cyclopts import App

from alignment.config.compute import FastCPU

# torch's profiler writes of its own doings to stderr, unless told so before torch is loaded.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

bench = App(
    name="bench",
    help="Measure speed and memory; each prints one JSON line (docs/performance.md). `--model` is "
    "a directory or a size (260k, 25m, 135m, 1b), of which a random model is made on first use. "
    "`--fast-cpu off` measures without the hand-written CPU passes, as `compute.fast_cpu` does. "
    "`--profile` says where the time goes, also as a table on stderr.",
)


@bench.command
def reward(
    *,
    model: str,
    data: Path,
    pairs: int = 512,
    batch: int = 32,
    max_length: int = 512,
    fast_cpu: FastCPU = "auto",
    profile: bool = False,
) -> None:
    """Reward-model training: pairs per second, first loss, peak memory.

    For example:

    ```
    align bench reward --model DIR --data harmless.jsonl.gz --pairs 512 --batch 32
    align bench reward --model 25m --data harmless.jsonl.gz --pairs 16 --batch 8 --profile
    ```
    """
    from alignment.bench.reward import run

    sizes = {"pairs": pairs, "batch": batch, "max_length": max_length}
    one_step = {"pairs": min(pairs, batch)} if profile else None
    _show(fast_cpu, run, one_step, model=model, data=data, **sizes)


@bench.command
def intake(
    *,
    data: Path,
    rows: int = 500_000,
    shape: Literal["hh", "native"] = "hh",
    packed: bool = False,
) -> None:
    """Intake: rows per second and peak memory for a delivery made of real comparisons.

    The delivery (about 1.4 KB a row) is written below the temporary directory ($TMPDIR) first.

    For example:

    ```
    align bench intake --rows 500000 --data harmless.jsonl.gz
    ```
    """
    from alignment.bench.intake import run

    print(json.dumps(run(data=data, rows=rows, shape=shape, packed=packed)))


@bench.command
def sample(
    *,
    model: str,
    prompts: int = 64,
    k: int = 16,
    max_new_tokens: int = 96,
    fast_cpu: FastCPU = "auto",
    profile: bool = False,
) -> None:
    """Best-of-K sampling and scoring with two reward models: samples and tokens per second.

    For example:

    ```
    align bench sample --model DIR --prompts 64 --k 16
    align bench sample --model 25m --prompts 4 --max-new-tokens 48 --profile
    ```
    """
    from alignment.bench.sample import run

    sizes = {"prompts": prompts, "k": k, "max_new_tokens": max_new_tokens}
    # The profiler keeps every call of an operator, some 2,000 for each token that is drawn.
    fewer = {"prompts": min(prompts, 32), "max_new_tokens": min(max_new_tokens, 24)}
    _show(fast_cpu, run, fewer if profile else None, model=model, **sizes)


@bench.command
def ppo(
    *,
    model: str,
    episodes: int = 256,
    batch: int = 64,
    new_tokens: int = 48,
    epochs: int = 4,
    roles: Literal["four", "five", "shared"] = "four",
    fast_cpu: FastCPU = "auto",
    profile: bool = False,
) -> None:
    """PPO: episodes per second and memory.

    Roles are full copies of policy, critic, reference and one reward model (`four`) or two
    (`five`), or five adapters over one backbone (`shared`).

    For example:

    ```
    align bench ppo --model DIR --episodes 256 --batch 64
    align bench ppo --model DIR --roles shared
    align bench ppo --model 25m --episodes 16 --batch 16 --new-tokens 24 --profile
    ```
    """
    from alignment.bench.ppo import run

    sizes = {"episodes": episodes, "batch": batch, "new_tokens": new_tokens, "epochs": epochs}
    one_iteration = {"episodes": batch} if profile else None
    _show(fast_cpu, run, one_iteration, model=model, roles=roles, **sizes)


def _show(
    fast_cpu: FastCPU, run: Callable[..., Any], profile: Mapping[str, Any] | None, **settings: Any
) -> None:
    """Measure, and print the figures as one JSON line; where the time goes on stderr."""
    from alignment.bench.conditions import table, under

    figures = under(fast_cpu, run, profile=profile, **settings)
    if profile is not None:
        print(table(figures), file=sys.stderr)
    print(json.dumps(figures))
