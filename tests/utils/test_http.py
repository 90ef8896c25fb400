"""HTTP against a real local server that drops connections, refuses and redirects."""

from __future__ import annotations

import json
import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from alignment.errors import StageError
from alignment.execution.failures import kind_of
from alignment.utils.http import HTTPClient, Refused, Unanswered, answers
from alignment.utils.loopback import is_loopback, spare_loopback

KEY = "sk-0123456789"
DEAD = "http://127.0.0.1:9"


class Trouble(BaseHTTPRequestHandler):
    """Handles its n-th request by `deeds[n]`; a number is a status, afterwards all goes well."""

    deeds: list[Any]
    seen: list[str]

    def log_message(self, *_: Any) -> None:
        return None

    def do_GET(self) -> None:
        self.seen.append(self.path)
        deed = self.deeds.pop(0) if self.deeds else 200
        if callable(deed):
            deed(self)
            return
        body = json.dumps({"path": self.path, "key": self.headers.get("Authorization")}).encode()
        self.send_response(deed)
        self.send_header("Location", "http://127.0.0.1:9/")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Break the connection in the middle of the reply, as a dying server does."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.connection.close()


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    handler = type("Handler", (Trouble,), {"deeds": [], "seen": []})
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    running.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


Made = Callable[..., tuple[HTTPClient, type[Trouble], list[float]]]


@pytest.fixture
def client(server: ThreadingHTTPServer) -> Made:
    def make(*deeds: Any, **settings: Any) -> tuple[HTTPClient, type[Trouble], list[float]]:
        handler: Any = server.RequestHandlerClass
        handler.deeds[:] = deeds
        pauses: list[float] = []
        url = f"http://127.0.0.1:{server.server_port}"
        made = HTTPClient(url, **{"timeout": 5.0, "pause": pauses.append, **settings})
        return made, handler, pauses

    return make


def test_a_connection_reset_mid_reply_is_asked_again_alone(client: Made) -> None:
    asked, handler, pauses = client(200, reset, 502)
    found = [asked.ask(f"/{number}", lambda reply: reply["path"]) for number in range(3)]
    assert found == ["/0", "/1", "/2"]
    assert handler.seen == ["/0", "/1", "/1", "/1", "/2"], "the others are not sent twice"
    assert asked.requests == 5
    assert len(pauses) == 2
    assert 0.25 <= pauses[0] <= 0.5 <= pauses[1] <= 1.0


def test_a_lost_server_is_a_passing_failure_however_it_is_told(client: Made) -> None:
    for deeds in ((reset, reset), (503, 503)):
        asked, _, _ = client(*deeds, retries=1)
        with pytest.raises(Unanswered) as caught:
            asked.ask("/x", dict)
        told = StageError("no answer from the server")
        told.__cause__ = caught.value
        assert kind_of(told) == "transient"


def test_what_is_refused_is_not_asked_again_and_redirects_keep_the_key(client: Made) -> None:
    for status in (307, 302, 400, 401, 404):
        asked, handler, _ = client(status, key=KEY)
        handler.seen.clear()
        with pytest.raises(Refused, match=f"HTTP {status}") as caught:
            asked.ask("/x", dict, lambda _attempt: {"prompt": [1]})
        assert handler.seen == ["/x"]
        assert KEY not in str(caught.value)
        assert kind_of(caught.value) == "unknown"


def test_an_unreadable_reply_is_asked_again_with_another_body(client: Made) -> None:
    asked, _, _ = client(retries=2)
    bodies: list[int] = []

    def body(attempt: int) -> dict[str, Any]:
        bodies.append(attempt)
        return {}

    with pytest.raises(Unanswered, match="KeyError") as caught:
        asked.ask("/x", lambda reply: reply["nothing"], body)
    assert bodies == [0, 1, 2]
    assert kind_of(caught.value) == "unknown"


def test_loopback_is_asked_without_the_proxy(
    client: Made, server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, DEAD)
        monkeypatch.setenv(name.upper(), DEAD)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    asked, _, _ = client(retries=0)
    assert asked.ask("/x", lambda reply: reply["path"]) == "/x"
    assert answers(f"http://127.0.0.1:{server.server_port}/health")
    assert answers(f"http://localhost:{server.server_port}/health")
    assert not answers(DEAD)
    assert not answers("no address")


def test_libraries_are_told_to_spare_loopback() -> None:
    environment: dict[str, str] = {"NO_PROXY": "intra.net, localhost"}
    spare_loopback(environment)
    spare_loopback(environment)
    assert environment["no_proxy"] == environment["NO_PROXY"] == "intra.net,localhost,127.0.0.1,::1"
    environment = {"no_proxy": "*", "NO_PROXY": "x"}
    spare_loopback(environment)
    assert environment["NO_PROXY"] == "*"


def test_which_addresses_are_loopback() -> None:
    near = ("http://127.0.0.1:1/v1", "http://127.8.0.1", "http://[::1]:8", "https://LOCALHOST/x")
    assert all(is_loopback(url) for url in near)
    far = ("http://10.0.0.1", "http://127.0.0.1.example.com", "http://localhost.example.com", "")
    assert not any(is_loopback(url) for url in far)


def test_requests_are_not_lines_in_the_log(client: Made, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    asked, _, _ = client()
    asked.ask("/x", dict)
    assert caplog.text == ""
