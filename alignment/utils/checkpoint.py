"""Exact training checkpoints: weights, optimiser, scheduler and random states, without pickle.

A checkpoint is a directory `step-000120` that appears by one rename, so a kill never leaves half of
one. Older checkpoints are deleted only after that. The one exception is a step that is saved again
(see `save`). Tensors go to safetensors, the rest to JSON.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from alignment.utils.files import atomic_write_json, fsync_directory, read_json

PREFIX = "step-"


@dataclass
class TrainingState:
    """Everything that a training loop needs to continue exactly.

    `modules` (shared parameters once), `optimizers` and `schedulers` are saved and loaded in place.
    `extra` holds any JSON values (prompt order, adaptive-KL coefficient, counters).
    """

    modules: Mapping[str, torch.nn.Module]
    optimizers: Mapping[str, torch.optim.Optimizer] = field(default_factory=dict)
    schedulers: Mapping[str, Any] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


def latest(directory: Path) -> int | None:
    """Step of the newest whole checkpoint, or None."""
    return max((_step(path) for path in directory.glob(f"{PREFIX}*")), default=None)


def save(directory: Path, step: int, state: TrainingState, keep: int = 1) -> None:
    """Write checkpoint `step`, then delete all but the newest `keep`.

    If `step` was saved before, its old checkpoint is renamed first. A kill between the two renames
    leaves none under that step's name, and training resumes from an older one, or from the start.
    """
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / f".{PREFIX}{step:06d}.partial"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    tensors: dict[str, torch.Tensor] = {}
    for name, module in state.modules.items():
        for key, parameter in _module_tensors(module).items():
            tensors[f"module/{name}/{key}"] = parameter
    record: dict[str, Any] = {"step": step, "extra": state.extra, "optimizers": {}}
    for name, optimizer in state.optimizers.items():
        record["optimizers"][name] = _split_optimizer(f"optimizer/{name}", optimizer, tensors)
    record["schedulers"] = {name: item.state_dict() for name, item in state.schedulers.items()}
    for name, tensor in state.tensors.items():
        tensors[f"tensor/{name}"] = tensor
    record["random"] = _random_states(tensors)
    save_file(
        {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()},
        temporary / "state.safetensors",
    )
    atomic_write_json(temporary / "state.json", record)
    with (temporary / "state.safetensors").open("rb") as file:
        os.fsync(file.fileno())
    target = directory / f"{PREFIX}{step:06d}"
    if target.exists():
        replaced = directory / f".{PREFIX}{step:06d}.replaced"
        shutil.rmtree(replaced, ignore_errors=True)
        target.rename(replaced)
        temporary.rename(target)
        shutil.rmtree(replaced)
    else:
        temporary.rename(target)
    fsync_directory(directory)
    for old in sorted(directory.glob(f"{PREFIX}*"), key=_step)[:-keep]:
        shutil.rmtree(old)


def load(directory: Path, state: TrainingState) -> int:
    """Restore the newest checkpoint into `state`, random states included; returns its step.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    step = latest(directory)
    if step is None:
        raise FileNotFoundError(f"no checkpoint in {directory}")
    source = directory / f"{PREFIX}{step:06d}"
    record = read_json(source / "state.json")
    tensors = load_file(source / "state.safetensors")
    for name, module in state.modules.items():
        for key, parameter in _module_tensors(module).items():
            with torch.no_grad():
                parameter.copy_(tensors[f"module/{name}/{key}"])
    for name, optimizer in state.optimizers.items():
        prefix = f"optimizer/{name}"
        optimizer.load_state_dict(_join_optimizer(prefix, record["optimizers"][name], tensors))
    for name, scheduler in state.schedulers.items():
        scheduler.load_state_dict(record["schedulers"][name])
    state.tensors = {
        key.removeprefix("tensor/"): value
        for key, value in tensors.items()
        if key.startswith("tensor/")
    }
    state.extra = record["extra"]
    _restore_random(record["random"], tensors)
    return step


def _step(path: Path) -> int:
    return int(path.name.removeprefix(PREFIX))


def _module_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers; each storage once (tied embeddings are one tensor)."""
    storages: set[tuple[object, ...]] = set()
    tensors = {}
    for key, value in module.state_dict(keep_vars=True).items():
        if isinstance(value, torch.Tensor):
            # The address alone does not identify it: a view may start where another tensor starts.
            storage = (value.data_ptr(), tuple(value.shape), value.stride(), value.dtype)
            if value.numel() == 0 or storage not in storages:
                storages.add(storage)
                tensors[key] = value
    return tensors


def _split_optimizer(
    prefix: str, optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]
) -> dict[str, Any]:
    """Move an optimiser's tensors into `tensors`; returns the rest of its state as JSON values."""
    plain_state = optimizer.state_dict()
    plain: dict[str, Any] = {"param_groups": plain_state["param_groups"], "state": {}}
    for index, values in plain_state["state"].items():
        plain["state"][str(index)] = {}
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{prefix}/{index}/{key}"] = value
            else:
                plain["state"][str(index)][key] = value
    return plain


def _join_optimizer(
    prefix: str, plain: dict[str, Any], tensors: dict[str, torch.Tensor]
) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {int(key): dict(row) for key, row in plain["state"].items()}
    for name, value in tensors.items():
        if name.startswith(f"{prefix}/"):
            index, key = name.removeprefix(f"{prefix}/").split("/", 1)
            state.setdefault(int(index), {})[key] = value
    return {"state": state, "param_groups": plain["param_groups"]}


def _random_states(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    tensors["random/torch"] = torch.get_rng_state()
    if torch.cuda.is_available():
        for index, value in enumerate(torch.cuda.get_rng_state_all()):
            tensors[f"random/cuda/{index}"] = value
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
    }


def _restore_random(record: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(tensors["random/torch"])
    if torch.cuda.is_available():
        count = sum(key.startswith("random/cuda/") for key in tensors)
        for index in range(min(count, torch.cuda.device_count())):
            torch.cuda.set_rng_state(tensors[f"random/cuda/{index}"], index)
    version, words, gauss = record["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = record["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
