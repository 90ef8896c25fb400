"""Settings that cannot change what a stage writes: they are in no fingerprint.

Only what is certain: how often a loop saves its state (a resumed run ends in the same bits), and
how a judge's endpoint is reached; and `compute.fast_cpu`, for a program keeps to the passes that
were chosen when it first needed them (`compute-choice.json`), and `compute.sharding`, whose choices
are kept too (`sharding-choice.json`); and `sample.fresh_prompts`, which decides what a stage has
for inputs. Other settings that move the last
bits of a result stay in: `compute.threads` and everything that cuts a batch into pieces change the
order of sums, as `compute.processes` does in training, and the number of bootstrap samples changes
the intervals that are written.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

_SAVES = "only how often the state is saved"
_REACHES = "only how the endpoint is reached; a verdict that cannot be had fails or is left out"

_STARTS = "only where the processes run, and what starts them"
_SPLITS = "only rounding: each process holds a part of the same weights and takes the same steps"
_SERVES = "only where and how a server runs; a check before the first draw shows what it serves"

_INPUTS = "the inputs tell: with it, the earlier versions' prompts are among them"

NEUTRAL: dict[str, str] = {
    "sample.fresh_prompts": _INPUTS,
    "base.pretrain.checkpoint_every": _SAVES,
    "finetune.sft.checkpoint_every": _SAVES,
    "finetune.rejection.checkpoint_every": _SAVES,
    "finetune.student.size.checkpoint_every": _SAVES,
    "rewards.checkpoint_every": _SAVES,
    "ppo.checkpoint_every": _SAVES,
    "evaluate.checkpoint_every": _SAVES + "; the text of an answer never depends on its batch",
    "compute.fast_cpu": "only rounding, as another processor would; choices are kept apart",
    "compute.sharding": _SPLITS,
    "compute.nodes": _STARTS,
    "compute.launch": _STARTS,
    "inference.vllm.python": _SERVES,
    "inference.vllm.gpu_memory_utilization": _SERVES,
    "inference.endpoint.url": _SERVES,
    "evaluate.judge.api_key_env": _REACHES,
    "evaluate.judge.concurrency": _REACHES,
    "evaluate.judge.timeout": _REACHES,
    "evaluate.judge.retries": _REACHES,
}
"""Dotted key → why it cannot change a result."""

_DEALS = "processes take whole shards and forward passes, each of which one process computes alike"

NEUTRAL_IN: dict[str, dict[str, str]] = {
    module: {"compute.processes": _DEALS} for module in ("sample", "select", "collect", "evaluate")
}
"""Stage module → dotted key → why it cannot change that stage's result."""


def without_neutral(values: Mapping[str, Any], module: str = "") -> dict[str, Any]:
    """A copy of nested plain values, section → settings, without those neutral in this stage."""
    changing = copy.deepcopy(dict(values))
    for key in (*NEUTRAL, *NEUTRAL_IN.get(module, ())):
        *path, name = key.split(".")
        here: Any = changing
        for part in path:
            here = here.get(part) if isinstance(here, dict) else None
        if isinstance(here, dict):
            here.pop(name, None)
    return changing
