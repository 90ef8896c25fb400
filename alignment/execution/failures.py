"""What kind of failure it was, and what to do about it.

memory     smaller pieces with the same maths, once
transient  try again, more and more slowly
disk       stop; say how much is needed
known      bad data, bad settings, a stage's own verdict: stop with the remedy
unknown    stop; the traceback is in the log
killed     the process was told to end; what it has done is kept
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any, Literal

from alignment.config.effective import effective
from alignment.config.load import set_dotted
from alignment.config.program import ProgramConfig
from alignment.errors import AlignError, Terminated, redact

Kind = Literal["memory", "transient", "disk", "known", "unknown", "killed"]

FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_WORDS = ("No space left", "disk is full")  # of libraries that wrap it; of SQLite
PASSING = (
    errno.EIO,
    errno.EAGAIN,
    errno.EBUSY,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ECONNREFUSED,
    errno.ECONNABORTED,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
)
PASSING_NAMES = ("ConnectionError", "TransportError", "Timeout", "TimeoutException", "URLError")
"""Classes of requests, httpx and urllib, which are not imported for this."""

MICRO_BATCH = (
    "finetune.sft.per_device_train_batch_size",
    "finetune.rejection.per_device_train_batch_size",
)
PIECES: dict[str, tuple[str, ...]] = {
    "finetune": MICRO_BATCH,
    "student": MICRO_BATCH,
    "reward": ("rewards.max_tokens_per_micro_batch",),
    "sample": ("sample.generation.generation_batch_size",),
    "collect": ("collect.generation.generation_batch_size",),
    "evaluate": (
        "evaluate.generation.generation_batch_size",
        "evaluate.max_tokens_per_micro_batch",
    ),
    "ppo": ("ppo.max_tokens_per_micro_batch",),
}
"""Stage module → settings that bound memory and change results by rounding at most."""


def kind_of(error: BaseException) -> Kind:
    """The kind of a failure, from the error and what caused it."""
    if not isinstance(error, Exception):
        return "killed"
    chain = list(_chain(error))
    for one in chain:
        told: Kind | None = getattr(one, "failure", None)
        if told is not None:
            return told
        if (isinstance(one, OSError) and one.errno in FULL) or any(
            words in str(one) for words in FULL_WORDS
        ):
            return "disk"
        if _out_of_memory(one):
            return "memory"
    # What caused it counts more than how it was told: a lost server comes as a StageError.
    if any(_passes(one) for one in chain):
        return "transient"
    return "known" if isinstance(error, AlignError) else "unknown"


def in_words(error: BaseException) -> str:
    """The failure as an attempt records it."""
    if isinstance(error, KeyboardInterrupt) and not isinstance(error, Terminated):
        return "interrupted (Ctrl-C)"
    if not isinstance(error, Exception):
        return "told to end: cancelled, or a SIGTERM"
    return redact(f"{type(error).__name__}: {error}").strip(": ")


def smaller(program: ProgramConfig, module: str) -> tuple[ProgramConfig, list[str]]:
    """The program with the pieces of a stage halved, and the changes in words.

    The batch of a step, its mean loss and its order stay what they were: only what is computed at
    once is less. An empty list means that nothing can be made smaller.
    """
    values: dict[str, Any] = effective(program).model_dump(mode="json")
    said = []
    for key in PIECES.get(module, ()):
        before = _value(values, key)
        if before is None:
            before = _unset(program)
        half = int(before) // 2
        if half >= (64 if key == "rewards.max_tokens_per_micro_batch" else 1):
            set_dotted(values, key, half, where=key)
            said.append(f"{key} {before} → {half}")
    return ProgramConfig.model_validate(values), said


def free_memory() -> None:
    """Give back what the failed attempt held."""
    import gc
    import sys

    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    here: BaseException | None = error
    while here is not None and id(here) not in seen:
        seen.add(id(here))
        yield here
        here = here.__cause__ or (None if here.__suppress_context__ else here.__context__)


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in said or "can't allocate memory" in said
    )


def _passes(error: BaseException) -> bool:
    if isinstance(error, FileNotFoundError | PermissionError):
        return False
    status = getattr(error, "code", None) or getattr(
        getattr(error, "response", None), "status_code", None
    )
    if isinstance(status, int):
        return status == 429 or status >= 500
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError) and error.errno in PASSING:
        return True
    return any(base.__name__ in PASSING_NAMES for base in type(error).__mro__)


def _value(values: dict[str, Any], key: str) -> Any:
    here: Any = values
    for part in key.split("."):
        here = here[part]
    return here


def _unset(program: ProgramConfig) -> int:
    """What PPO itself takes where `ppo.max_tokens_per_micro_batch` is unset."""
    import torch

    from alignment.pipeline.estimate import base_size
    from alignment.training.ppo.forward import unset_piece

    on_gpu = program.compute.device != "cpu" and torch.cuda.is_available()
    return unset_piece("cuda" if on_gpu else "cpu", base_size(program).parameters)
