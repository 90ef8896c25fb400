"""What is said after Ctrl-C is what can be done next."""

from __future__ import annotations

from typing import Any

import pytest
from fake_program import run_all

from alignment.cli import main as cli
from alignment.cli.reproduce import reproduce


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("verb", "resumable"),
    [("run", True), ("resume", True), ("stage", True), ("bench", False), ("compare", False)],
)
def test_only_a_stage_goes_on(
    verb: str, resumable: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "app", interrupted)
    monkeypatch.setattr("sys.argv", ["align", verb])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("sys.excepthook", None)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 130
    told = capsys.readouterr().err
    assert told.startswith("stopped")
    assert ("align resume" in told) == resumable


def test_a_reproduction_names_what_it_left(
    make_program: Any, stages: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """`align resume` would go on with the original."""
    program = make_program()
    run_all(program)
    stages.before = interrupted
    with pytest.raises(SystemExit) as caught:
        reproduce("rlhf-v1", workspace=program.workspace)
    assert caught.value.code == 130
    told = " ".join(capsys.readouterr().err.split())
    left = program.workspace.with_name("workspace-again-rlhf-v1")
    assert told.endswith(
        f"stopped; remove {left} before you start again, or name another by --into"
    )
