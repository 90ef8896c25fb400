"""No password of an address is shown or kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fake_program as fake
import pytest

from alignment.errors import AlignError, ConfigError, redact
from alignment.execution.failures import in_words
from alignment.tracking.observer import tracker
from alignment.tracking.rebuild import rebuild

ADDRESS = "postgresql://me:hunter2@127.0.0.1:9/mlflow"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (ADDRESS, "postgresql://me:***@127.0.0.1:9/mlflow"),
        ("http://me:p@ss/w:rd@host/api", "http://me:***@host/api"),
        ("postgresql+asyncpg://:hunter2@host", "postgresql+asyncpg://:***@host"),
        ("postgresql://host/db?user=me&password=hunter2&x=1", None),
        ("two: a://u:one@h and b://u:two@h.", "two: a://u:***@h and b://u:***@h."),
        ("http://127.0.0.1:4200/api", "http://127.0.0.1:4200/api"),
        ("sqlite:////tmp/work space/mlflow.db", "sqlite:////tmp/work space/mlflow.db"),
        ("ask me@example.org, port: 5000", "ask me@example.org, port: 5000"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
    ],
)
def test_passwords_of_addresses(given: str, shown: str | None) -> None:
    assert redact(given) == (shown or "postgresql://host/db?user=me&password=***&x=1")


def test_errors_and_records_of_failures() -> None:
    error = AlignError(f"no {ADDRESS}", where=ADDRESS, remedy=f"start {ADDRESS}")
    for text in (str(error), repr(error), error.message, in_words(OSError(f"no {ADDRESS}"))):
        assert "hunter2" not in text
        assert "me:***@127.0.0.1" in text


def test_a_configuration_with_a_password_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI") as caught:
        fake.fake_program(tmp_path, tracking={"uri": ADDRESS})
    assert "hunter2" not in str(caught.value)


def test_what_is_said_of_a_store_out_of_reach(
    make_program: Any,
    stages: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    program = make_program(versions=1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said: list[str] = []
    fake.run_all(program, observers=tracker(program, said.append))
    with pytest.raises(AlignError) as caught:
        rebuild(program)
    assert "cannot be written" in str(caught.value)
    printed = capfd.readouterr()
    texts = [*said, str(caught.value), printed.out, printed.err]
    texts += [
        path.read_text(encoding="utf-8", errors="replace")
        for path in Path(program.workspace).rglob("*")
        if path.is_file()
    ]
    assert not [text for text in texts if "hunter2" in text]


def test_the_addresses_of_the_pages() -> None:
    from flows.servers.web_pages import legend

    shown = legend("http://me:hunter2@host:5000", "http://me:hunter2@host:4200", None)
    assert "hunter2" not in shown
    assert "http://me:***@host:5000" in shown


def test_the_server_over_the_store_is_not_told_among_its_arguments(
    make_program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.servers import web_pages

    told: list[Any] = []
    monkeypatch.setattr(web_pages, "Child", lambda *given, **_: told.append(given))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ADDRESS)
    web_pages.mlflow_child(make_program(), 5000)
    _name, command, environment, _log = told[0]
    assert "hunter2" not in " ".join(command)
    assert environment["MLFLOW_BACKEND_STORE_URI"] == ADDRESS
