"""Every verb beside a store that is away or that refuses: one line, no traceback, no password."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fake_program import run_all

PASSWORD = "pa55/w@rd"


class Refusing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401)
        body = b'{"error_code": "UNAUTHENTICATED", "message": "who are you?"}'
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    """An address at which every request is answered by 401."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def workspace(stages: Any, make_program: Any) -> Path:
    """A finished program of one version that has no history yet."""
    program = make_program(versions=1)
    run_all(program)
    return Path(program.workspace)


def align(workspace: Path, host: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "alignment.cli.main", *words, "-w", str(workspace)],
        env={
            **os.environ,
            "MLFLOW_TRACKING_URI": f"http://user:{PASSWORD}@{host}",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("away", [True, False], ids=["away", "401"])
@pytest.mark.parametrize("words", [["mlflow", "update"], ["mlflow", "rebuild"]], ids=" ".join)
def test_one_masked_line(workspace: Path, refusing: str, away: bool, words: list[str]) -> None:
    done = align(workspace, "127.0.0.1:9" if away else refusing, *words)
    told = done.stdout + done.stderr
    assert done.returncode == 1
    assert "error: the MLflow store cannot be written" in told
    assert "remedy:" in told
    assert "the ledger is whole" in told
    assert told.count("\n") <= 5, told
    assert "Traceback" not in told
    assert "pa55" not in told
    assert "w@rd" not in told


def test_a_decision_and_the_doctor_go_on(workspace: Path, refusing: str) -> None:
    for words in (["approve", "rlhf-v1"], ["doctor", "--quick"]):
        done = align(workspace, refusing, *words)
        told = done.stdout + done.stderr
        assert "Traceback" not in told
        assert "pa55" not in told
        assert "w@rd" not in told
        assert "MLflow" in told


def test_a_fault_of_ours_shows_no_password_either(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys; from alignment.cli.main import app, main\n"
        f"def fail(): raise RuntimeError('http://user:{PASSWORD}@host/x')\n"
        "app.command(fail, name='fail'); sys.argv = ['align', 'fail']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "RuntimeError: http://user:***@host/x" in done.stderr
    assert "pa55" not in done.stderr
