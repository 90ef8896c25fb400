"""Asks a judge many questions at once; a killed run pays for no reply twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from alignment.utils.json_lines import cut_tail, json_line
from alignment.utils.progress import Progress

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Asked = TypeVar("Asked")
Reply = TypeVar("Reply", bound="DataclassInstance")


def ask_all(
    questions: Sequence[Asked],
    ask: Callable[[Asked], Reply],
    usable: Callable[[Reply], bool],
    *,
    replies: Path,
    concurrency: int,
    progress: Progress,
) -> Iterator[Reply]:
    """The replies in the order in which they arrive.

    Args:
        replies: file to which usable replies are appended as JSON lines; a failure is not, and so
            is tried again on resume.
    """
    pool = ThreadPoolExecutor(concurrency)
    cut_tail(replies)
    try:
        with replies.open("a", encoding="utf-8") as file:
            for done in as_completed([pool.submit(ask, one) for one in questions]):
                reply = done.result()
                if usable(reply):
                    file.write(json_line(asdict(reply)))
                    file.flush()
                progress.advance(1)
                yield reply
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
