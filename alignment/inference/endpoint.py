"""A chat model behind HTTP that speaks OpenAI's protocol, asked patiently and without leaks.

Standard library only. Redirects are refused, because following one would hand the key to another
host; the key comes from the environment, and is cut out of whatever a server echoes back.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

from alignment.config.evaluate import JudgeConfig
from alignment.errors import ConfigError, StageError

Messages = list[dict[str, str]]
_LONGEST_PAUSE = 60.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Unusable(Exception):
    """One request has failed for good; the message says why, without secrets."""


class Endpoint:
    """Asks one model; may be called from several threads.

    Args:
        config: where and how.
        pause: sleeps; tests pass their own.

    Raises:
        ConfigError: the address is no HTTP address, or the key's variable is not set.
    """

    def __init__(self, config: JudgeConfig, pause: Callable[[float], None] = time.sleep):
        if not config.base_url.startswith(("http://", "https://")):
            raise ConfigError(
                f"{config.base_url!r} is no HTTP address",
                where="evaluate.judge.base_url",
                remedy="give it as http://host:port/v1",
            )
        self._config = config
        self._url = f"{config.base_url.rstrip('/')}/chat/completions"
        self._key = ""
        if config.api_key_env is not None:
            self._key = os.environ.get(config.api_key_env, "")
            if not self._key:
                raise ConfigError(
                    f"the judge needs a key in the environment variable {config.api_key_env}",
                    where="evaluate.judge.api_key_env",
                    remedy=f"export {config.api_key_env}=… before the run",
                )
        self._opener = urllib.request.build_opener(_NoRedirect())
        self._pause = pause
        self._lock = threading.Lock()
        self._not_before = 0.0
        self.requests = 0
        """How many requests were sent, retries included."""

    def ask(self, messages: Messages, usable: Callable[[str], bool], seed: int) -> str:
        """The model's reply, asked again after failures until `usable` accepts it.

        Waits double from half a second, with jitter drawn from `seed`; a server's Retry-After goes
        first and holds back all threads.

        Raises:
            StageError: the server refuses the request itself (key, model name, address).
            Unusable: no usable reply after all retries.
        """
        jitter = random.Random(seed)
        why = ""
        for attempt in range(self._config.retries + 1):
            if attempt:
                self._pause(min(0.5 * 2 ** (attempt - 1), _LONGEST_PAUSE) * jitter.uniform(0.5, 1))
            self._wait_for_turn()
            try:
                reply = self._post(messages, attempt)
            except urllib.error.HTTPError as error:
                with error:
                    why = self._describe(error)
                    if error.code in (429, 503):
                        self._hold_back(error.headers.get("Retry-After"))
                if error.code < 500 and error.code not in (408, 409, 425, 429):
                    raise StageError(
                        f"the judge refuses to answer: {why}",
                        where=self._url,
                        remedy="check evaluate.judge: base_url, model and the key's variable",
                    ) from None
                continue
            # ValueError: no JSON; KeyError, IndexError, TypeError: JSON of another shape.
            except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
                why = self._clean(f"{type(error).__name__}: {error}")
                continue
            reply = self._clean(reply)
            if usable(reply):
                return reply
            why = f"no verdict in the reply {reply[-80:]!r}"
        raise Unusable(why)

    def _post(self, messages: Messages, attempt: int) -> str:
        body = {
            "model": self._config.model,
            "messages": messages,
            # The first answer is the likeliest one; a reply without a verdict is drawn anew.
            "temperature": 0.0 if attempt == 0 else 0.7,
            "max_tokens": self._config.max_tokens,
        }
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(
            self._url, json.dumps(body).encode(), headers, method="POST"
        )
        with self._lock:
            self.requests += 1
        with self._opener.open(request, timeout=self._config.timeout) as response:
            reply = json.loads(response.read())["choices"][0]["message"]["content"]
        if not isinstance(reply, str):
            raise TypeError("the reply has no text")
        return reply

    def _wait_for_turn(self) -> None:
        with self._lock:
            wait = self._not_before - time.monotonic()
        if wait > 0:
            self._pause(wait)

    def _hold_back(self, retry_after: str | None) -> None:
        try:
            seconds = min(max(float(retry_after or 0), 0.0), _LONGEST_PAUSE)
        except ValueError:  # a date: our own doubling waits do
            return
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + seconds)

    def _describe(self, error: urllib.error.HTTPError) -> str:
        try:
            said = error.read(300).decode("utf-8", "replace")
        except (OSError, HTTPException):
            said = ""
        return self._clean(f"HTTP {error.code} {said}".strip())

    def _clean(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text
