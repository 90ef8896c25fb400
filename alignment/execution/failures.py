"""Sorts failures into kinds, each with its own response.

memory     retry once in smaller pieces with the same maths
transient  retry, with growing pauses
disk       stop; say how much space is needed
known      bad data, bad settings or a stage's own error: stop and show the remedy
unknown    stop; the traceback is in the log
killed     the process was told to end; its finished work is kept
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
FULL_WORDS = ("No space left", "disk is full")  # in wrapped OSErrors; in errors of SQLite
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
"""Error classes of requests, httpx and urllib, by name to avoid the imports."""

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
"""Stage module → settings that bound memory and change results only by rounding."""


LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "remote process exited",
)
"""What errors of gloo and NCCL say when another process is gone."""


def of_a_lost_process(error: BaseException) -> bool:
    """Whether an error of one of several processes only says that another one is gone."""
    return isinstance(error, RuntimeError) and any(words in str(error) for words in LOST)


def kind_of(error: BaseException) -> Kind:
    """The kind of a failure, from the error and its causes."""
    if not isinstance(error, Exception):
        return "killed"
    chain = list(_chain(error))
    for cause in chain:
        kind: Kind | None = getattr(cause, "failure", None)
        if kind is not None:
            return kind
        if (isinstance(cause, OSError) and cause.errno in FULL) or any(
            words in str(cause) for words in FULL_WORDS
        ):
            return "disk"
        if _out_of_memory(cause):
            return "memory"
    # The cause counts more than the outer error: a lost server arrives as a StageError.
    if any(_passes(cause) for cause in chain):
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
    """The program with a stage's memory-bounding settings halved, and a list of the changes.

    A step keeps its batch, mean loss and order; only less is computed at once. The list is empty
    if nothing can be made smaller.
    """
    values: dict[str, Any] = effective(program).model_dump(mode="json")
    changes = []
    for key in PIECES.get(module, ()):
        before = _value(values, key)
        if before is None:
            before = _unset(program)
        half = int(before) // 2
        if half >= (64 if key == "rewards.max_tokens_per_micro_batch" else 1):
            set_dotted(values, key, half, where=key)
            changes.append(f"{key} {before} → {half}")
    return ProgramConfig.model_validate(values), changes


def free_memory() -> None:
    """Release the memory of the failed attempt."""
    import gc
    import sys

    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _chain(error: BaseException) -> Iterator[BaseException]:
    visited: set[int] = set()
    here: BaseException | None = error
    while here is not None and id(here) not in visited:
        visited.add(id(here))
        yield here
        here = here.__cause__ or (None if here.__suppress_context__ else here.__context__)


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in message or "can't allocate memory" in message
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
    """The value that PPO uses where `ppo.max_tokens_per_micro_batch` is unset."""
    import torch

    from alignment.models.activations import unset_piece
    from alignment.pipeline.work import base_size

    on_gpu = program.compute.device != "cpu" and torch.cuda.is_available()
    return unset_piece("cuda" if on_gpu else "cpu", base_size(program).parameters)
