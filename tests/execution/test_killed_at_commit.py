"""Killed while outputs are hashed and sealed: the stage goes on from its last checkpoint."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from alignment.errors import StageError
from alignment.execution.runner import Runner
from alignment.pipeline.ledger import Ledger

KEY = "rlhf-v1/finetune"


@pytest.mark.parametrize("where", ["hash_outputs", "fsync_tree", "fsync_directory"])
def test_a_kill_during_the_seal_costs_no_checkpoint(
    tmp_path: Path, stages: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    from fake_program import fake_program

    program = fake_program(tmp_path / "workspace", versions=1, tracking={"enabled": False})
    worked: list[str] = []

    def before(context: Any) -> None:
        """Ten steps and a checkpoint after the last, unless it is there."""
        last = context.scratch / "step-000010"
        if not last.exists():
            worked.append(f"{context.version}/{context.stage}")
            last.mkdir()

    def run_until(key: str) -> None:
        with Runner(program) as runner:
            for node in runner.plan:
                runner.run_node(node)
                if node.key == key:
                    return

    stages.before = before
    run_until("rlhf-v1/select")
    child = os.fork()
    if child == 0:
        try:
            monkeypatch.setattr(
                f"alignment.pipeline.ledger.{where}",
                lambda *_given: os.kill(os.getpid(), signal.SIGKILL),
            )
            run_until(KEY)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    ledger = Ledger(program.workspace)
    partial = next(ledger.stage_dir("rlhf-v1", "finetune").glob(".*.partial"))
    sealed = where == "fsync_directory"  # after the rename
    assert (partial / "scratch" / "step-000010").exists()
    assert (partial / "out").exists() is not sealed

    worked.clear()
    run_until(KEY)
    assert worked == [], "the steps were not done again"
    attempts = ledger.attempts("rlhf-v1", "finetune")
    assert [item.status for item in attempts] == (["done"] if sealed else ["killed", "done"])
    if not sealed:
        assert attempts[1].resumed_from == 1
        assert not partial.exists()
    manifest = ledger.current("rlhf-v1", "finetune")
    assert manifest is not None
    assert manifest.attempt == attempts[-1].number


@pytest.mark.parametrize(
    ("error", "raised"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(errno.EIO, "did not answer"), StageError)],
)
def test_what_goes_wrong_after_the_seal_does_not_undo_it(
    tmp_path: Path,
    stages: Any,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    raised: type[BaseException],
) -> None:
    from fake_program import fake_program

    program = fake_program(tmp_path / "workspace", versions=1, tracking={"enabled": False})
    mark_current = Ledger.mark_current

    def fails(self: Ledger, manifest: Any) -> None:
        if manifest.stage == "finetune":
            raise error
        mark_current(self, manifest)

    def run_all() -> None:
        with Runner(program, say=lambda _message: None) as runner:
            for node in runner.plan:
                runner.run_node(node)

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "mark_current", fails)
        with pytest.raises(raised):
            run_all()
    attempts = Ledger(program.workspace).attempts("sft", "finetune")
    assert [attempt.status for attempt in attempts] == ["done"], "not done again, not called broken"
    run_all()
    assert stages.ran.count("sft/finetune") == 1
