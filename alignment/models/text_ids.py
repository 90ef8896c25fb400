"""Text to token ids without transformers' wrapper, which takes longer than the tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Encode = Callable[[str], list[int]]
"""Ids of a text, without special tokens around it."""


def encoder_of(tokenizer: PreTrainedTokenizerBase) -> Encode:
    """A function that gives the ids of `tokenizer.encode(text, add_special_tokens=False)`.

    With a fast tokenizer it calls the backend itself, which takes half the time. The wrapper would
    first set padding, truncation and what becomes of special tokens in the text; where the backend
    does not stand as `encode` would set it, `encode` is called.
    """
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

    def wrapped(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    own = type(tokenizer)
    plain = (
        isinstance(tokenizer, PreTrainedTokenizerFast)
        and own.encode is PreTrainedTokenizerBase.encode
        and own._encode_plus is PreTrainedTokenizerFast._encode_plus
    )
    if not plain:
        return wrapped  # a class that does something of its own

    def direct(text: str) -> list[int]:
        backend = tokenizer.backend_tokenizer
        if (
            backend.truncation is not None
            or backend.padding is not None
            or backend.encode_special_tokens != tokenizer.split_special_tokens
        ):
            return wrapped(text)
        ids: list[int] = backend.encode(text, add_special_tokens=False).ids
        return ids

    return direct
