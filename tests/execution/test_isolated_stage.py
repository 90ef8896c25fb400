"""What the parent makes of a child's end: killed, out of memory, or an error it has told."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from alignment.config.compute import ComputeConfig
from alignment.config.load import load_program
from alignment.errors import DataError, StageError
from alignment.execution.failures import kind_of
from alignment.execution.isolated_stage import ChildOutcome, interpret, run_isolated
from alignment.execution.runner import Runner
from alignment.pipeline.ledger import Ledger
from alignment.pipeline.node import Node
from alignment.utils.memory import oom_kills

NODE = Node("rlhf-v1", "reward_safety", "reward")


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`child(script, counted=(0, 0), processes=1)`: run a shell script as the stage's process, in
    its partial directory; `counted` is what the kernel's counter says before and after."""

    def run(script: str, counted: tuple[int | None, ...] = (0, 0), processes: int = 1) -> float:
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
        python.chmod(0o755)
        monkeypatch.setattr("alignment.execution.isolated_stage.fork_module", no_server)
        counts = list(counted)
        monkeypatch.setattr("alignment.execution.isolated_stage.oom_kills", lambda: counts.pop(0))
        monkeypatch.setattr(
            "alignment.execution.start_command.sys", SimpleNamespace(executable=str(python))
        )
        compute = ComputeConfig(processes=processes)
        log = tmp_path / "log"
        return run_isolated(tmp_path, NODE, tmp_path, log, compute=compute, processes=processes)

    return run


def no_server(*_: object) -> NoReturn:
    raise OSError("AF_UNIX path too long")


def test_without_a_fork_server_it_starts_anew_and_says_so(
    child: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("alignment.execution.isolated_stage.can_fork", lambda _: True)
    record = json.dumps({"peak_mb": 12.5, "at": 1.0})
    assert child(f"echo '{record}' > result-0.json") == 12.5
    assert "AF_UNIX path too long" in caplog.text


def told(at: float, failure: str, error: str = "it broke", kind: str = "StageError") -> str:
    """What `write_result` records of an error."""
    values = {"kind": kind, "error": error, "where": None, "remedy": None}
    return json.dumps(values | {"failure": failure, "at": at})


@pytest.mark.parametrize(
    ("counted", "kind"), [((3, 4), "memory"), ((3, 3), "killed"), ((None, None), "killed")]
)
@pytest.mark.parametrize(("script", "processes"), [("kill -9 $$", 1), ("exit 137", 2)])
def test_only_what_the_kernel_killed_for_memory_is_out_of_memory(
    child: Any, counted: Any, kind: str, script: str, processes: int
) -> None:
    with pytest.raises(StageError, match="ended with signal SIGKILL") as caught:
        child(script, counted, processes)
    assert kind_of(caught.value) == kind


@pytest.mark.parametrize(
    ("code", "processes", "oom", "died", "failure"),
    [
        (-9, 1, True, "signal SIGKILL", "memory"),
        (-9, 1, False, "signal SIGKILL", "killed"),
        (137, 2, True, "signal SIGKILL", "memory"),
        (143, 2, True, "signal SIGTERM", "killed"),
        (137, 1, True, "exit code 137", None),
        (-11, 1, True, "signal SIGSEGV", None),
        (0, 1, False, "exit code 0", None),
    ],
)
def test_what_a_death_without_a_word_means(
    code: int, processes: int, oom: bool, died: str, failure: Any
) -> None:
    assert interpret(code, [], oom, processes) == ChildOutcome(died=died, failure=failure)


def test_a_record_is_read_only_of_one_that_ended_well() -> None:
    done = {"peak_mb": 12.5, "at": 1.0}
    assert interpret(0, [done], oom=True) == ChildOutcome(peak_mb=12.5)
    assert interpret(3, [done], oom=False) == ChildOutcome(died="exit code 3")
    error = json.loads(told(1.0, "known"))
    assert str(interpret(134, [error], oom=False, processes=2).error) == "it broke"
    assert interpret(139, [error], oom=False, processes=2).died == "signal SIGSEGV"


def lost(rank: int, at: float) -> dict[str, Any]:
    """What a process tells that only lost another."""
    return json.loads(told(at, "unknown", "Connection closed")) | {"rank": rank, "lost": True}


@pytest.mark.parametrize(("oom", "failure"), [(False, "killed"), (True, "memory")])
def test_who_told_nothing_is_named(oom: bool, failure: Any) -> None:
    """torchrun ends with 1 whatever its processes died of."""
    outcome = interpret(1, [lost(0, 2.0), lost(2, 1.0)], oom, processes=4)
    died = "the loss of a process that told nothing (rank 1, 3): Connection closed"
    assert outcome == ChildOutcome(died=died, failure=failure)


def test_a_cause_outweighs_a_loss_and_a_loss_of_nobody_is_an_error() -> None:
    cause = json.loads(told(3.0, "known", "row 3 is bad", "DataError")) | {"rank": 1}
    found = interpret(1, [lost(0, 2.0), cause], oom=False, processes=2).error
    assert isinstance(found, DataError)
    nobody = interpret(1, [lost(0, 2.0), lost(1, 3.0)], oom=False, processes=2)
    assert str(nobody.error) == "Connection closed"


def test_one_that_exits_on_its_own_was_not_killed(child: Any) -> None:
    with pytest.raises(StageError, match="ended with exit code 3") as caught:
        child("exit 3", (3, 4))
    assert kind_of(caught.value) == "known"


def test_the_first_of_several_errors_counts(child: Any) -> None:
    first, later = told(11.5, "memory", "no memory"), told(11.6, "unknown", "connection closed")
    with pytest.raises(StageError, match="no memory") as caught:
        child(f"echo '{later}' >result-0.json; echo '{first}' >result-1.json; exit 1", processes=2)
    assert kind_of(caught.value) == "memory"


def test_a_killed_process_outweighs_what_its_peers_say(child: Any) -> None:
    peer = told(11.5, "unknown", "connection closed")
    with pytest.raises(StageError, match="SIGKILL") as caught:
        child(f"echo '{peer}' >result-0.json; exit 137", (0, 1), 2)
    assert kind_of(caught.value) == "memory"


def test_an_error_is_raised_as_if_here_and_an_old_one_does_not_count(
    child: Any, tmp_path: Path
) -> None:
    error = told(1.0, "known", "row 3 is bad", "DataError")
    with pytest.raises(DataError, match="row 3"):
        child(f"echo '{error}' >result-0.json; exit 3")
    assert (tmp_path / "result-0.json").exists()
    assert child("""echo '{"peak_mb": 12.5, "at": 2.0}' >result-0.json""") == 12.5


def test_the_launcher_tells_who_was_killed_not_who_lost_him(tmp_path: Path) -> None:
    (tmp_path / "victim.py").write_text(
        "import os, pathlib, signal, sys, time\n"
        "note = pathlib.Path(sys.argv[1])\n"
        "if os.environ['RANK'] == '1':\n"
        "    note.with_suffix('.new').write_text(str(os.getpid()))\n"
        "    note.with_suffix('.new').rename(note)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "while not note.exists(): time.sleep(0.005)\n"
        "status = pathlib.Path('/proc', note.read_text(), 'stat')\n"
        "while ') Z' not in status.read_text(): time.sleep(0.005)\n"
        "sys.exit(1)\n"
    )
    command = [
        sys.executable,
        "-m",
        "alignment.execution.launcher",
        "2",
        "victim",
        str(tmp_path / "pid"),
    ]
    path = f"{Path(__file__).parents[2]}:{tmp_path}"
    done = subprocess.run(command, env={"PYTHONPATH": path}, timeout=60, check=False)
    assert done.returncode == 128 + signal.SIGKILL


def test_what_runs_side_by_side_has_a_process_of_its_own(tmp_path: Path) -> None:
    versions = "[{name: rlhf-v1, set: {inference.engine: vllm}}, {name: rlhf-v2}]"
    demo = Path(__file__).parents[2] / "configs" / "demo.yaml"
    alone = "compute.processes=1"  # else all that run a model have processes of their own
    program = load_program(demo, [f"workspace={tmp_path}", f"versions={versions}", alone])
    assert program.orchestration.parallel
    runner = Runner(program)
    found = {node.key for node in runner.plan if runner.isolated(node)}
    beside = {f"sft/{stage}" for stage in ("evaluate", "collect")}
    for version in ("rlhf-v1", "rlhf-v2"):
        beside |= {f"{version}/reward_{domain}" for domain in ("helpfulness", "safety")}
    assert found == beside | {f"rlhf-v2/{stage}" for stage in ("evaluate", "collect")}


def test_a_child_tells_how_it_went(tmp_path: Path, stages: Any) -> None:
    from fake_program import fake_program

    from alignment.execution.stage_main import main

    program = fake_program(tmp_path / "workspace", versions=1, tracking={"enabled": False})
    with Runner(program) as runner:
        for node in runner.plan:
            if node.key == "rlhf-v1/finetune":
                break
            runner.run_node(node)
        key = runner.fingerprint(node)
        assert key is not None
        runner.ledger.begin(node, key)
        result = runner.ledger.partial_dir("rlhf-v1", "finetune", key) / "result-0.json"
        assert main(program.workspace, "rlhf-v1/finetune") == 0
        assert json.loads(result.read_text())["peak_mb"] > 0

        def breaks(_context: Any) -> None:
            raise MemoryError

        stages.before = breaks
        with pytest.raises(MemoryError):
            main(program.workspace, "rlhf-v1/finetune")
        assert json.loads(result.read_text())["failure"] == "memory"


def test_a_stage_killed_from_outside_is_not_done_in_smaller_pieces(
    tmp_path: Path, stages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fake_program import fake_program

    program = fake_program(
        tmp_path / "workspace",
        versions=1,
        tracking={"enabled": False},
    )

    def killed(*_given: Any, **_named: Any) -> float:
        error = StageError("the process ended with signal SIGKILL")
        error.failure = "killed"
        raise error

    monkeypatch.setattr("alignment.execution.runner.run_isolated", killed)
    monkeypatch.setattr(Runner, "isolated", lambda _self, node: node.module == "reward")
    said: list[str] = []
    with Runner(program, say=said.append) as runner:
        for node in runner.plan:
            if node.module == "reward":
                break
            runner.run_node(node)
        with pytest.raises(StageError, match="SIGKILL"):
            runner.run_node(node)
    attempts = Ledger(program.workspace).attempts(node.version, node.stage)
    assert [attempt.status for attempt in attempts] == ["killed"]
    assert said == []


def test_the_kernels_counter_is_found(tmp_path: Path) -> None:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    assert oom_kills(tmp_path) is None
    (tmp_path / "proc" / "vmstat").write_text("pgfault 12\noom_kill 5\n")
    assert oom_kills(tmp_path) == 5
    groups = tmp_path / "proc" / "self" / "cgroup"
    groups.write_text("4:memory:/box\n1:cpu,cpuacct:/\n0::/\n")
    assert oom_kills(tmp_path) == 5, "our group is not to be seen from in here"
    first = tmp_path / "sys" / "fs" / "cgroup" / "memory" / "box" / "memory.oom_control"
    first.parent.mkdir(parents=True)
    first.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert oom_kills(tmp_path) == 2
    groups.write_text("0::/user.slice/x.scope\n")
    second = tmp_path / "sys" / "fs" / "cgroup" / "user.slice" / "x.scope" / "memory.events"
    second.parent.mkdir(parents=True)
    second.write_text("low 0\noom 9\noom_kill 1\noom_group_kill 0\n")
    assert oom_kills(tmp_path) == 1
