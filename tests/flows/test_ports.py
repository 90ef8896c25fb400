"""Ports of the pages: usable ones are taken, others replaced or refused before anything starts."""

from __future__ import annotations

import socket

import pytest

from alignment.errors import ConfigError
from flows.servers.child_process import free_port
from flows.servers.web_pages import usable_port


def test_a_port_that_somebody_has_or_will_have_is_replaced() -> None:
    said: list[str] = []
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        for listens in (False, True):  # bound only, as by a server that is starting
            if listens:
                listening.listen()
            other = usable_port(port, "MLflow", said.append)
            assert other != port
            assert said.pop() == f"port {port} is in use: MLflow takes {other}"
    mine = free_port()
    assert usable_port(mine, "MLflow", said.append) == mine
    assert said == []
    assert usable_port(mine, "Prefect", said.append, [mine]) != mine, "MLflow's, not up yet"


def test_ports_that_nobody_can_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for port in (-1, 65536, 70000):
        with pytest.raises(ConfigError, match=f"port {port}") as error:
            usable_port(port, "Prefect", print)
        assert error.value.where == "--prefect-port"

    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", forbidden)
    with pytest.raises(ConfigError, match=r"port 80: .*Permission denied"):
        usable_port(80, "MLflow", print)
