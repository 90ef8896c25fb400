"""`align bench`: speed and memory, one JSON line each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from cyclopts import App

from alignment.config.compute import FastCPU

bench = App(
    name="bench",
    help="Measure speed and memory; each prints one JSON line. `--fast-cpu off` measures without "
    "the hand-written CPU passes, as `compute.fast_cpu` does.",
)


@bench.command
def reward(
    *,
    model: Path,
    data: Path,
    pairs: int = 512,
    batch: int = 32,
    max_length: int = 512,
    fast_cpu: FastCPU = "auto",
) -> None:
    """Reward-model training: pairs per second, first loss, peak memory.

    For example:

    ```
    align bench reward --model DIR --data harmless.jsonl.gz --pairs 512 --batch 32
    ```
    """
    from alignment.bench.reward import run

    _show(fast_cpu, run, model=model, data=data, pairs=pairs, batch=batch, max_length=max_length)


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
    model: Path,
    prompts: int = 64,
    k: int = 16,
    max_new_tokens: int = 96,
    fast_cpu: FastCPU = "auto",
) -> None:
    """Best-of-K sampling and scoring with two reward models: samples and tokens per second.

    For example:

    ```
    align bench sample --model DIR --prompts 64 --k 16
    ```
    """
    from alignment.bench.sample import run

    _show(fast_cpu, run, model=model, prompts=prompts, k=k, max_new_tokens=max_new_tokens)


@bench.command
def ppo(
    *,
    model: Path,
    episodes: int = 256,
    batch: int = 64,
    new_tokens: int = 48,
    epochs: int = 4,
    roles: Literal["four", "five", "shared"] = "four",
    fast_cpu: FastCPU = "auto",
) -> None:
    """PPO: episodes per second and memory.

    Roles are full copies of policy, critic, reference and one reward model (`four`) or two
    (`five`), or five adapters over one backbone (`shared`).

    For example:

    ```
    align bench ppo --model DIR --episodes 256 --batch 64
    align bench ppo --model DIR --roles shared
    ```
    """
    from alignment.bench.ppo import run

    sizes = {"episodes": episodes, "batch": batch, "new_tokens": new_tokens, "epochs": epochs}
    _show(fast_cpu, run, model=model, roles=roles, **sizes)


def _show(fast_cpu: FastCPU, run: Callable[..., Any], **settings: Any) -> None:
    """Measure, and print the figures as one JSON line."""
    from alignment.bench.conditions import under

    print(json.dumps(under(fast_cpu, run, **settings)))
