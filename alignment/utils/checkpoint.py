"""Exact training checkpoints: weights, optimiser, scheduler and random states, without pickle.

A checkpoint is a directory `step-000120` that appears by one rename, so a kill never leaves half of
one. Older checkpoints are deleted only after that. The one exception is a step that is saved again
(see `save`). Tensors go to safetensors, the rest to JSON.

Every process calls `save` and `load`. The first one writes; of sharded tensors each writes its own
rows, to `shard-N.safetensors`. Any number of processes may go on from there, sharded or not.
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
from safetensors import safe_open
from safetensors.torch import save_file

from alignment.utils import distributed
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
    sharded = {key: value for key, value in tensors.items() if distributed.is_shard(value)}
    if not sharded and not distributed.is_first():
        return
    temporary = directory / f".{PREFIX}{step:06d}.partial"
    if distributed.is_first():
        directory.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
    if sharded:
        distributed.barrier()
        own = {key: distributed.local(value) for key, value in sharded.items()}
        _write(temporary / f"shard-{distributed.rank()}.safetensors", own)
        record["shards"] = distributed.size()
        distributed.barrier()
    if distributed.is_first():
        rest = {key: value for key, value in tensors.items() if key not in sharded}
        _write(temporary / "state.safetensors", rest)
        atomic_write_json(temporary / "state.json", record)
        _put_in_place(directory, temporary, step, keep)
    if sharded:
        distributed.barrier()


def _write(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    taken: set[int] = set()
    save_file({key: _alone(value.detach().cpu(), taken) for key, value in tensors.items()}, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _alone(tensor: torch.Tensor, taken: set[int]) -> torch.Tensor:
    """The tensor, copied only where it is a part of something larger or shares its storage with one
    of `taken`, which cannot be written: a copy of weights and moments would be most of what a
    training holds."""
    storage = tensor.untyped_storage()
    whole = tensor.is_contiguous() and storage.nbytes() == tensor.nbytes
    if not whole or storage.data_ptr() in taken:
        return tensor.contiguous().clone()
    taken.add(storage.data_ptr())
    return tensor


def _put_in_place(directory: Path, temporary: Path, step: int, keep: int) -> None:
    """Give a written checkpoint its name, then delete older ones."""
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
    stored = _Stored(source, int(record.get("shards", 0)))
    split = False
    for name, module in state.modules.items():
        for key, parameter in _module_tensors(module).items():
            split = split or distributed.is_shard(parameter)
            with torch.no_grad():
                distributed.local(parameter).copy_(stored.part(f"module/{name}/{key}", parameter))
    for name, optimizer in state.optimizers.items():
        prefix = f"optimizer/{name}"
        plain = record["optimizers"][name]
        optimizer.load_state_dict(_join_optimizer(prefix, plain, stored, optimizer))
    for name, scheduler in state.schedulers.items():
        scheduler.load_state_dict(record["schedulers"][name])
    state.tensors = {
        key.removeprefix("tensor/"): stored.rows(key, *_own_rows(stored, key, split))
        for key in stored.names
        if key.startswith("tensor/")
    }
    state.extra = record["extra"]
    _restore_random(record["random"], stored)
    return step


class _Stored:
    """The tensors of a checkpoint, whole or in shards."""

    def __init__(self, source: Path, shards: int):
        self._shards = [source / f"shard-{number}.safetensors" for number in range(shards)]
        self._whole = source / "state.safetensors"
        with safe_open(self._whole, framework="pt") as file:
            here = set(file.keys())
        self._split: dict[str, int] = {}  # name → number of rows
        for path in self._shards:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118
                    rows = file.get_slice(key).get_shape()[0]
                    self._split[key] = self._split.get(key, 0) + rows
        self.names = sorted(here | set(self._split))

    def height(self, key: str) -> int:
        """Number of rows of a tensor; 1 for a scalar."""
        if key in self._split:
            return self._split[key]
        with safe_open(self._whole, framework="pt") as file:
            shape = file.get_slice(key).get_shape()
        return int(shape[0]) if shape else 1

    def part(self, key: str, parameter: torch.Tensor) -> torch.Tensor:
        """The tensor, or this process's rows of it if `parameter` is sharded."""
        split = distributed.is_shard(parameter)
        return self.rows(key, *_own_rows(self, key, split))

    def whole(self, key: str) -> torch.Tensor:
        """The whole tensor."""
        return self.rows(key, *_own_rows(self, key, False))

    def rows(self, key: str, start: int, stop: int) -> torch.Tensor:
        """Some rows of a tensor; all of one that is not in shards if they are all asked for."""
        if key not in self._split:
            with safe_open(self._whole, framework="pt") as file:
                if (start, stop) == (0, self.height(key)):
                    whole: torch.Tensor = file.get_tensor(key)
                    return whole
                rows: torch.Tensor = file.get_slice(key)[start:stop]
                return rows
        parts: list[torch.Tensor] = []
        for number, path in enumerate(self._shards):
            first, end = distributed.chunk(self._split[key], number, len(self._shards))
            low, high = max(start, first), min(stop, end)
            if low < high or (start == stop and number == 0):
                with safe_open(path, framework="pt") as file:
                    piece = slice(low - first, high - first) if low < high else slice(0, 0)
                    parts.append(file.get_slice(key)[piece])
        return torch.cat(parts)


def _own_rows(stored: _Stored, key: str, split: bool) -> tuple[int, int]:
    height = stored.height(key)
    return distributed.chunk(height) if split else (0, height)


def _step(path: Path) -> int:
    return int(path.name.removeprefix(PREFIX))


def _module_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers; each storage once (tied embeddings are one tensor)."""
    storages: set[tuple[object, ...]] = set()
    tensors = {}
    for key, value in module.state_dict(keep_vars=True).items():
        if isinstance(value, torch.Tensor):
            # The address alone does not identify it: a view may start where another tensor starts.
            storage: tuple[object, ...] = (id(value),)  # of a shard; it may be empty
            if not distributed.is_shard(value):
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
    prefix: str, plain: dict[str, Any], stored: _Stored, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {int(key): dict(row) for key, row in plain["state"].items()}
    for name in stored.names:
        if name.startswith(f"{prefix}/"):
            index, key = name.removeprefix(f"{prefix}/").split("/", 1)
            parameter = parameters[int(index)]
            # A moment has the parameter's shape; the number of steps has none.
            value = stored.whole(name) if key == "step" else stored.part(name, parameter)
            moment = value if key == "step" else distributed.like(parameter, value)
            state.setdefault(int(index), {})[key] = moment
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


def _restore_random(record: dict[str, Any], stored: _Stored) -> None:
    torch.set_rng_state(stored.whole("random/torch"))
    if torch.cuda.is_available():
        count = sum(key.startswith("random/cuda/") for key in stored.names)
        for index in range(min(count, torch.cuda.device_count())):
            torch.cuda.set_rng_state(stored.whole(f"random/cuda/{index}"), index)
    version, words, gauss = record["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = record["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
