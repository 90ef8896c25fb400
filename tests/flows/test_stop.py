"""Who stops a served stage gives it the whole of its grace, however long that is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from alignment.config.program import ProgramConfig
from alignment.utils.files import atomic_write_json

GRACE = 100.0


def patient(program: Any) -> ProgramConfig:
    values = program.model_dump(mode="json")
    values["orchestration"]["grace_seconds"] = GRACE
    return ProgramConfig.model_validate(values)


def test_a_lost_parent_is_followed_after_the_grace(
    program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.definitions import session

    given: list[float] = []
    monkeypatch.setattr(session, "deployed", lambda: True)
    monkeypatch.setattr(session, "end_with_parent", given.append)
    monkeypatch.setattr(session, "run_log", lambda: print)
    session.served_runner(patient(program), lambda: program, lambda: None)
    assert len(given) == 1
    assert given[0] > GRACE


def test_align_down_waits_for_the_grace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.serving import state_file
    from flows.serving.supervisor import longest_stop

    state_file.write_record(tmp_path, "m", "p", {}, longest_stop(GRACE))
    told = state_file.record(tmp_path)
    assert told is not None
    waited: list[float] = []
    asked: list[int] = []
    monkeypatch.setattr(state_file, "_gone", lambda _processes, wait: waited.append(wait))
    monkeypatch.setattr(psutil.Process, "terminate", lambda self: asked.append(self.pid))
    assert state_file.down(tmp_path) == ["align serve"]
    assert asked == [os.getpid()]
    assert waited[0] > GRACE
    assert state_file.record(tmp_path) is None


def test_ctrl_c_before_the_servers_are_up_leaves_no_note(tmp_path: Path) -> None:
    """`align doctor` would take it for a crash."""
    script = (
        "import sys, fake_program\n"
        "from pathlib import Path\n"
        "from flows.serving import serve\n"
        "from flows.servers import web_pages\n"
        "from flows.servers.child_process import free_port\n"
        "def wait_for(ready, children, stop):\n"
        "    print('waits', flush=True)\n"
        "    stop.wait()\n"
        "web_pages.wait_for = wait_for\n"
        "program = fake_program.fake_program(Path(sys.argv[1]), versions=1)\n"
        "program.workspace.mkdir()\n"
        "serve.serve(program, mlflow_port=free_port(), prefect_port=free_port())\n"
    )
    root = Path(__file__).parents[2]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW_"))}
    environment["PYTHONPATH"] = f"{root}:{root / 'tests' / 'helpers'}"
    workspace = tmp_path / "workspace"
    served = subprocess.Popen(
        [sys.executable, "-c", script, str(workspace)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert served.stdout is not None
    lines = []
    for line in served.stdout:
        lines.append(line)
        if line == "waits\n":
            assert (workspace / "prefect" / "server.json").exists()
            served.send_signal(signal.SIGINT)
            break
    output, _ = served.communicate(timeout=120)
    assert served.returncode == 0, "".join(lines) + output
    assert not list((workspace / "prefect").glob("*.json"))


def test_the_note_of_a_server_that_runs_for_another_command_stays(tmp_path: Path) -> None:
    """`align ui` beside `align serve`: whoever stops first leaves the other's server findable."""
    from flows.servers.prefect_environment import home
    from flows.servers.prefect_server import NOTE, drop_note

    note = home(tmp_path) / NOTE
    atomic_write_json(note, {"url": "http://127.0.0.1:1/api", "pid": os.getpid()})
    drop_note(tmp_path)
    assert note.exists()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    atomic_write_json(note, {"url": "http://127.0.0.1:1/api", "pid": ended.pid})
    drop_note(tmp_path)
    assert not note.exists()
