"""Where the time of a measured run goes, by phase.

While a `Recorder` watches, the functions in `HOOKS` say when they begin and end, in every thread;
the code that is measured does not know. A phase within a phase counts as the outer one. On a GPU a
phase ends when its work is done, so that work of two phases no longer overlaps there.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from importlib import import_module
from typing import Any, NamedTuple

import torch

PHASES = ("preparation", "forward", "backward", "optimiser", "decoding", "scoring")
WAITING, OTHER = "waiting", "other"

HOOKS = (
    ("preparation", "alignment.rewards.batches:Batcher.rows"),
    ("preparation", "alignment.rewards.batches:Batcher.cut"),
    ("preparation", "alignment.rewards.batches:Batcher.inputs"),
    ("preparation", "alignment.inference.engine:use_for_decoding"),
    ("preparation", "alignment.inference.engine:step_keys"),
    ("preparation", "alignment.training.ppo.forward:pack"),
    ("preparation", "alignment.training.ppo.forward:pieces"),
    ("preparation", "alignment.training.ppo.update:pack"),
    ("preparation", "alignment.training.ppo.update:pieces"),
    ("preparation", "alignment.training.ppo.trainer:compute_advantages"),
    ("forward", "alignment.rewards.train:forward"),
    ("forward", "alignment.rewards.train:ranking_loss"),
    ("forward", "alignment.training.ppo.roles:LanguageRole.logprobs"),
    ("forward", "alignment.training.ppo.roles:LanguageRole.logits"),
    ("forward", "alignment.training.ppo.roles:ValueRole.values"),
    ("forward", "alignment.training.ppo.update:policy_loss"),
    ("forward", "alignment.training.ppo.update:value_loss"),
    ("backward", "torch.autograd:backward"),
    ("backward", "torch.autograd:grad"),
    ("optimiser", "alignment.training.ppo.update:_step"),
    ("decoding", "alignment.inference.engine:decode"),
    ("scoring", "alignment.rewards.model:RewardModel.score"),
)
"""Phase and function, as the module that calls it knows it."""


class Span(NamedTuple):
    """A phase in one thread, from `began` to `ended`, with `threads` of torch's."""

    phase: str
    began: float
    ended: float
    threads: int


_recorder: Recorder | None = None


class Recorder:
    """A context manager that records the phases inside it."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.began = self.ended = 0.0
        self._threads = 1
        self._thread = threading.local()
        self._hooks = ExitStack()

    def __enter__(self) -> Recorder:
        global _recorder
        for name, place in HOOKS:
            _hook(name, place, self._hooks)
        _recorder = self
        self._threads = torch.get_num_threads()
        self.began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        global _recorder
        self.ended = time.perf_counter()
        _recorder = None
        self._hooks.close()

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """See `phase`."""
        if getattr(self._thread, "busy", False):
            yield
            return
        self._thread.busy = True
        began, threads = time.perf_counter(), torch.get_num_threads()
        try:
            yield
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
        finally:
            self._thread.busy = False
            self.spans.append(Span(name, began, time.perf_counter(), threads))

    def phases(self) -> dict[str, float]:
        """Seconds of each phase, of `waiting` and of `other`; together all that was measured."""
        found = divided(self.spans, self.began, self.ended, self._threads)
        return {name: round(part, 4) for name, part in found.items() if part}


@contextmanager
def phase(name: str) -> Iterator[None]:
    """A block that belongs to a phase, for code of the benchmarks themselves."""
    if _recorder is None:
        yield
        return
    with _recorder.inside(name):
        yield


def divided(spans: Sequence[Span], began: float, ended: float, threads: int) -> dict[str, float]:
    """Seconds of the stretch from `began` to `ended`, divided among the phases.

    Every moment is divided by threads of torch: a phase with n of N has n/N of it, and if phases
    have fewer than N, the rest is `waiting`. Moments in which no phase runs are `other`: Python
    between the phases, on one thread.

    Args:
        threads: N.
    """
    edges: list[tuple[float, int, str]] = []
    for span in spans:
        edges.append((min(max(span.began, began), ended), span.threads, span.phase))
        edges.append((min(max(span.ended, began), ended), -span.threads, span.phase))
    seconds = dict.fromkeys((*PHASES, WAITING, OTHER), 0.0)
    active: Counter[str] = Counter()
    before = began
    for moment, change, name in sorted([*edges, (ended, 0, OTHER)]):
        passed, busy = moment - before, active.total()
        if busy:
            whole = max(busy, threads)
            for running, count in active.items():
                seconds[running] += passed * count / whole
            seconds[WAITING] += passed * (whole - busy) / whole
        else:
            seconds[OTHER] += passed
        active[name] += change
        before = moment
    return seconds


def _hook(name: str, place: str, stack: ExitStack) -> None:
    """Put a function that records the phase in place of the one at `place`, until `stack` ends."""
    module, _, path = place.partition(":")
    *owners, attribute = path.split(".")
    owner: Any = import_module(module)
    for word in owners:
        owner = getattr(owner, word)
    recorded = _recorded(name, getattr(owner, attribute))
    stack.enter_context(replaced(owner, attribute, recorded))


@contextmanager
def replaced(owner: Any, attribute: str, value: Any) -> Iterator[None]:
    """Have `value` in place of an attribute of a module or a class inside the block."""
    before = getattr(owner, attribute)
    setattr(owner, attribute, value)
    try:
        yield
    finally:
        setattr(owner, attribute, before)


def _recorded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def steps(*given: Any, **named: Any) -> Iterator[Any]:
            with phase(name):
                yield from function(*given, **named)

        return steps

    @wraps(function)
    def whole(*given: Any, **named: Any) -> Any:
        with phase(name):
            return function(*given, **named)

    return whole
