"""A chat model behind an OpenAI-compatible HTTP API; the key comes from the environment."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from alignment.config.evaluate import JudgeConfig
from alignment.errors import StageError
from alignment.utils.http import HTTPClient, Refused

Messages = list[dict[str, str]]


class Endpoint:
    """Asks one model; several threads may use it.

    Args:
        pause: sleeps for some seconds; tests pass their own.

    Raises:
        ConfigError: the address is not an HTTP address, or the key's variable is not set.
    """

    def __init__(self, config: JudgeConfig, pause: Callable[[float], None] = time.sleep):
        key = config.key()
        self._config = config
        self._client = HTTPClient(
            config.base_url, timeout=config.timeout, retries=config.retries, key=key, pause=pause
        )

    @property
    def requests(self) -> int:
        """Number of requests sent, retries included."""
        return self._client.requests

    def ask(self, messages: Messages, usable: Callable[[str], bool], seed: int) -> str:
        """The model's reply; asks again until `usable` accepts one.

        Raises:
            StageError: the server refuses the request (key, model name, address).
            Unanswered: there was no usable reply after all retries.
        """

        def body(attempt: int) -> dict[str, Any]:
            return {
                "model": self._config.model,
                "messages": messages,
                # The first attempt takes the likeliest reply; later ones must sample another.
                "temperature": 0.0 if attempt == 0 else 0.7,
                "max_tokens": self._config.max_tokens,
            }

        def read(answer: dict[str, Any]) -> str:
            content = answer["choices"][0]["message"]["content"]
            if not isinstance(content, str):
                raise TypeError("the reply has no text")
            reply = self._client.clean(content)
            if not usable(reply):
                raise ValueError(f"no verdict in the reply {reply[-80:]!r}")
            return reply

        try:
            return self._client.ask("/chat/completions", read, body, seed=seed)
        except Refused as error:
            raise StageError(
                f"the judge refuses to answer: {error}",
                where=f"{self._config.base_url.rstrip('/')}/chat/completions",
                remedy="check evaluate.judge: base_url, model and the key's variable",
            ) from None
