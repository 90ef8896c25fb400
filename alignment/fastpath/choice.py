"""Decides whether a hand-written pass is used: only if it was measured to pay, and then for good.

The two ways round differently, so a choice decides bits. It is made once for a machine, a shape of
model and a kind of work, written down before it is first used, and never made again: in the user's
cache directory, so that two programs on one machine agree, and in the workspace, which keeps it
when it is copied and comes first. A choice that was made in another process meanwhile wins over
ours.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from torch import Tensor

from alignment.config.compute import ComputeConfig, FastCPU
from alignment.config.location import user_cache
from alignment.errors import LockedError
from alignment.utils.files import atomic_write_json, read_json
from alignment.utils.locks import file_lock
from alignment.utils.processor import processor
from alignment.utils.threads import threads

log = logging.getLogger("alignment")

Trial = Callable[[], Tensor | None]
"""A piece of work done one way; None where that way cannot do it."""

KEPT = "compute-choice.json"
SMALL = 50_000_000
"""Parameters from which products alone carry the time, and copies of weights cost memory."""
MARGIN = 1.15
"""Times the plain pass that the fast one must reach: less is within the noise of a busy machine."""
_TIMES = 3
_ENOUGH = 0.2  # seconds of measuring after which the trials so far have to do
_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)


@dataclass(frozen=True)
class Choice:
    """The result of one measurement.

    Attributes:
        gain: how many times as fast the fast pass was; None where it gave no usable result.
        reason: why it is not taken, for people; None where it is.
    """

    fast: bool
    gain: float | None = None
    reason: str | None = None

    def __str__(self) -> str:
        if self.fast:
            return f"fast CPU pass, {self.gain} times the plain one on this machine"
        return f"plain pass: {self.reason}"


@dataclass
class _Setting:
    """The settings of this process; `made` are the choices in use, by name."""

    mode: FastCPU
    workspace: Path | None = None
    made: dict[str, Choice] = field(default_factory=dict)


_setting: _Setting | None = None
_lock = RLock()


def _now() -> _Setting:
    global _setting
    if _setting is None:
        _setting = _Setting(ComputeConfig().fast_cpu)
    return _setting


@contextmanager
def choosing(mode: FastCPU, workspace: Path | None = None) -> Iterator[None]:
    """Inside the block choose as `compute.fast_cpu` says, and keep choices in `workspace`.

    It holds for the whole process, as the number of torch's threads does.
    """
    global _setting
    before, _setting = _setting, _Setting(mode, workspace)
    try:
        yield
    finally:
        _setting = before


def is_off() -> bool:
    """Whether fast passes are switched off."""
    return _now().mode == "off"


def choices() -> dict[str, str]:
    """Kind of work → the choice made in this process since `choosing` began, in words."""
    return {name.partition(":")[0]: str(choice) for name, choice in _now().made.items()}


def pays(kind: str, model: Any, fast: Trial, plain: Trial, *, margin: float = MARGIN) -> bool:
    """Whether `kind` of work with models like `model` is to be done the fast way.

    Args:
        fast, plain: the same piece of work both ways, for some tenths of a second; what they
            give must agree. Run only where the choice was never made. No random numbers are drawn.
        margin: times the plain one that the fast one must reach.
    """
    setting = _now()
    if setting.mode == "off":
        return False
    name = name_of(kind, model)
    with _lock:
        if name not in setting.made:
            choice = _kept(setting.workspace, name)
            if choice is None:
                choice = _keep(user_cache(), name, measured(fast, plain, margin))
            if setting.workspace is not None:
                choice = _keep(setting.workspace, name, choice)
            setting.made[name] = choice
            log.info("%s: %s", kind, choice)
        return setting.made[name].fast


def name_of(kind: str, model: Any) -> str:
    """What a choice is for: kind of work, model, number format, and where it runs."""
    config = model.config.get_text_config()
    first = next(model.parameters())
    sizes = "×".join(str(getattr(config, size, None)) for size in _SIZES)
    where = [processor(), f"{threads()} threads"]
    if first.is_cuda:
        where = [torch.cuda.get_device_name(first.device)]
    dtype = str(first.dtype).removeprefix("torch.")
    return f"{kind}: " + ", ".join(
        [f"{config.model_type} {sizes}", dtype, *where, f"torch {torch.__version__}"]
    )


def measured(fast: Trial, plain: Trial, margin: float = MARGIN) -> Choice:
    """Time the same work both ways: the best of a few runs each, alternating."""
    try:
        fast_result = fast()
    except (AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
        return Choice(False, None, f"the fast one fails here: {str(error).strip()[:200]}")
    plain_result = plain()
    if fast_result is None or plain_result is None:
        return Choice(False, None, "the fast one does not cover this model's numbers")
    if not _agree(fast_result, plain_result):
        return Choice(False, None, "the fast one gives other numbers here")
    best = {fast: float("inf"), plain: float("inf")}
    clock = _clock(plain_result)
    started = time.perf_counter()
    for _ in range(_TIMES):
        for way in best:
            best[way] = min(best[way], _seconds(way, clock))
        if time.perf_counter() - started > _ENOUGH:
            break
    gain = round(best[plain] / best[fast], 2)
    if gain < margin:
        return Choice(False, gain, f"the fast one gains too little here ({gain} times)")
    return Choice(True, gain)


def _clock(result: Tensor) -> Callable[[], float]:
    """What to time by. A choice stays for good, and on a busy machine the time on the wall would
    tell which way was interrupted more: there, and where there is one thread, this process's time
    on the CPU counts. On a GPU it tells nothing."""
    if result.is_cuda or (threads() > 1 and os.getloadavg()[0] < (os.cpu_count() or 1)):
        return time.perf_counter
    return time.process_time


def _seconds(way: Trial, clock: Callable[[], float]) -> float:
    began = clock()
    result = way()
    if result is not None and result.is_cuda:
        torch.cuda.synchronize(result.device)
    return clock() - began


def _agree(fast: Tensor, plain: Tensor) -> bool:
    tolerance = 1e-3 if plain.dtype == torch.float32 else 5e-2
    scale = float(plain.detach().abs().max().clamp(min=0.1))
    return torch.allclose(fast, plain, rtol=0.0, atol=tolerance * scale)


def _kept(workspace: Path | None, name: str) -> Choice | None:
    """An earlier choice of this name; the workspace's takes precedence."""
    for place in (workspace, user_cache()):
        if place is not None and (place / KEPT).is_file():
            values = read_json(place / KEPT).get(name)
            if values is not None:
                return Choice(**values)
    return None


def _keep(place: Path, name: str, choice: Choice) -> Choice:
    """Save a choice, unless another process has saved one; returns the one that counts."""
    path = place / KEPT
    try:
        place.mkdir(parents=True, exist_ok=True)
        busy = LockedError("somebody else is writing compute choices", where=str(path))
        with file_lock(place / f".{KEPT}.lock", patience=60.0, busy=lambda: busy):
            stored = read_json(path) if path.is_file() else {}
            if name in stored:
                return Choice(**stored[name])
            atomic_write_json(path, {**stored, name: asdict(choice)})
    except OSError as error:
        if place != user_cache():  # without a home the workspace keeps it
            raise
        log.info("the choice of passes is not kept in %s: %s", place, error.strerror)
    return choice
