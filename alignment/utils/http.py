"""HTTP for inference servers, judges and health checks.

Loopback servers are called directly, others through the proxies that the environment names.
Redirects are refused, because following one would send the key to another host. Every request has
a time limit. Requests that fail for a passing reason are sent again.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import httpx

from alignment.utils.loopback import is_loopback

T = TypeVar("T")

_PASSING = (408, 409, 425, 429)  # and everything from 500 on
_LONGEST_PAUSE = 60.0
_CONNECT = 10.0

# httpx logs a line per request, which would be tens of thousands in a stage's log.
logging.getLogger("httpx").setLevel(logging.WARNING)


class Refused(Exception):
    """The server rejected the request; sending it again would change nothing."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class Unanswered(Exception):
    """No usable reply after all retries. The message contains no secrets.

    Attributes:
        code: the last HTTP status; None if there was none, in which case the cause says more.
    """

    def __init__(self, message: str, code: int | None):
        super().__init__(message)
        self.code = code


class HTTPClient:
    """One JSON service; several threads may use it.

    Args:
        timeout: seconds without a byte after which a request counts as lost.
        key: bearer token; removed from whatever the server echoes back.
        pause: sleeps for some seconds; tests pass their own.

    Raises:
        ValueError: `base_url` is not an HTTP address.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float,
        retries: int = 5,
        key: str = "",
        pause: Callable[[float], None] = time.sleep,
    ):
        if not is_http(base_url):
            raise ValueError(f"{base_url!r} is not an HTTP address")
        self._base = base_url.rstrip("/")
        self._timeout = timeout
        self._retries = retries
        self._key = key
        self._pause = pause
        self._lock = threading.Lock()
        self._not_before = 0.0
        self.requests = 0
        """Number of requests sent, retries included."""

    def ask(
        self,
        path: str,
        read: Callable[[dict[str, Any]], T],
        body: Callable[[int], dict[str, Any]] | None = None,
        *,
        seed: int = 0,
        plain: bool = False,
    ) -> T:
        """Send a request and return the result of `read` on the server's reply.

        The request is sent again after a lost connection, a timeout, a 408, 409, 425, 429 or 5xx,
        and an unreadable reply. Pauses double from half a second, with jitter; a server's
        Retry-After takes precedence and holds back all threads.

        Args:
            read: parses the reply; raises ValueError, LookupError or TypeError to ask again.
            body: gives the body of a POST for an attempt, counted from 0; None sends a GET.
            seed: of the jitter.
            plain: the reply is a text, not a JSON object; `read` gets it as `text`.

        Raises:
            Refused: the server answered with any other status, redirects included.
            Unanswered: there was no usable reply after all retries.
        """
        jitter = random.Random(seed)
        why, code, cause = "", None, None
        for attempt in range(self._retries + 1):
            if attempt:
                self._pause(min(0.5 * 2 ** (attempt - 1), _LONGEST_PAUSE) * jitter.uniform(0.5, 1))
            self._wait_for_turn()
            code = cause = None
            try:
                response = self._send(path, None if body is None else body(attempt))
                code = response.status_code
                if response.is_success:
                    reply = {"text": response.text} if plain else response.json()
                    if not isinstance(reply, dict):
                        raise TypeError("the reply is not a JSON object")
                    return read(reply)
                why = self.clean(f"HTTP {code} {response.text}".strip())[:300]
                if code < 500 and code not in _PASSING:
                    raise Refused(why, code)
                if code in (429, 503):
                    self._hold_back(response.headers.get("Retry-After"))
            except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
                why, cause = self.clean(f"{type(error).__name__}: {error}"), error
        raise Unanswered(why, code) from cause

    def clean(self, text: str) -> str:
        """`text` without the key."""
        return text.replace(self._key, "[key]") if self._key else text

    def _send(self, path: str, body: dict[str, Any] | None) -> httpx.Response:
        with self._lock:
            self.requests += 1
        url = self._base + path
        return _client(url).request(
            "GET" if body is None else "POST",
            url,
            json=body,
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=_limit(self._timeout),
        )

    def _wait_for_turn(self) -> None:
        with self._lock:
            wait = self._not_before - time.monotonic()
        if wait > 0:
            self._pause(wait)

    def _hold_back(self, retry_after: str | None) -> None:
        try:
            seconds = min(max(float(retry_after or 0), 0.0), _LONGEST_PAUSE)
        except ValueError:  # a date; the doubling pauses suffice
            return
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + seconds)


def is_http(url: str) -> bool:
    """Whether `url` is an HTTP or HTTPS address with a host."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host)


def answers(url: str, timeout: float = 1.0) -> bool:
    """Whether a GET of `url` succeeds."""
    try:
        return _client(url).get(url, timeout=_limit(timeout)).status_code == httpx.codes.OK
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def _limit(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=min(seconds, _CONNECT), pool=None)


def _client(url: str) -> httpx.Client:
    return _shared(is_loopback(url), url.startswith("https"))


@cache
def _shared(loopback: bool, tls: bool) -> httpx.Client:
    """A client that keeps no connection open, so that none goes stale between two requests."""
    return httpx.Client(
        follow_redirects=False,
        trust_env=not loopback,
        verify=tls,  # without TLS nothing is verified, and loading certificates takes 0.2 s
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
    )
