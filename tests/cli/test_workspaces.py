"""Which workspace a command works on, and that commands that write say so first."""

from __future__ import annotations

import ast
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from alignment.cli import workspaces
from alignment.cli.approve import approve
from alignment.cli.common import find_workspace, load_to_change
from alignment.cli.use import use
from alignment.config.load import check_program
from alignment.config.program import ProgramConfig
from alignment.errors import AlignError
from alignment.operations.reproduce import _prepare
from alignment.pipeline.preflight import preflight
from alignment.pipeline.workspace import is_reproduction, keep_program


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ALIGN_WORKSPACE", raising=False)


def make(name: str, workspace: str | None = None) -> ProgramConfig:
    program = check_program({"name": name, "workspace": workspace or f"workspaces/{name}"})
    program.workspace.mkdir(parents=True, exist_ok=True)
    keep_program(program)
    return program


def test_the_only_one_is_meant() -> None:
    make("demo")
    assert find_workspace(None) == Path("workspaces/demo")


def test_several_are_nobodys_default() -> None:
    make("demo")
    make("hh")
    later = time.time() + 60
    os.utime("workspaces/hh/program.json", (later, later))
    with pytest.raises(AlignError, match="2 workspaces below") as caught:
        find_workspace(None)
    assert "demo, hh" in caught.value.message
    assert "align use demo" in (caught.value.remedy or "")


def test_a_choice_is_kept_until_it_is_changed(capsys: pytest.CaptureFixture[str]) -> None:
    make("demo")
    make("hh")
    use(Path("hh"))
    assert find_workspace(None) == Path("workspaces/hh")
    keep_program(make("demo"))  # it was run last, which changes nothing
    assert find_workspace(None) == Path("workspaces/hh")
    use()
    assert "* workspaces/hh" in capsys.readouterr().out
    use(none=True)
    with pytest.raises(AlignError, match="none is named"):
        find_workspace(None)


def test_what_is_named_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    make("demo")
    make("hh")
    use(Path("hh"))
    monkeypatch.setenv("ALIGN_WORKSPACE", "workspaces/demo")
    assert find_workspace(None) == Path("workspaces/demo")
    assert find_workspace(Path("workspaces/hh")) == Path("workspaces/hh")


def test_a_choice_that_is_gone_is_no_other() -> None:
    make("demo")
    make("hh")
    use(Path("hh"))
    shutil.rmtree("workspaces/hh")
    with pytest.raises(AlignError, match="in use, workspaces/hh, is gone"):
        find_workspace(None)


def test_a_copied_folder_works_on_its_own_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("demo")
    make("hh")
    use(tmp_path / "workspaces" / "hh")
    shutil.copytree(tmp_path / "workspaces", tmp_path / "copy" / "workspaces")
    monkeypatch.chdir(tmp_path / "copy")
    assert find_workspace(None).resolve() == tmp_path / "copy" / "workspaces" / "hh"


def test_home_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("demo")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_workspace(Path("~/workspaces/demo")) == tmp_path / "workspaces" / "demo"
    with pytest.raises(AlignError, match="variables are not replaced"):
        find_workspace(Path("$HOME/workspaces/demo"))
    monkeypatch.setenv("ALIGN_WORKSPACE", "~/workspaces/demo")
    assert find_workspace(None) == tmp_path / "workspaces" / "demo"


def test_a_reproduction_is_never_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    program = make("demo")
    target = Path("workspaces/demo-again-rlhf-v1")
    _prepare(program, "rlhf-v1", target, batches=False)
    keep_program(program.model_copy(update={"workspace": target}))
    assert is_reproduction(target)
    assert find_workspace(None) == Path("workspaces/demo")
    shutil.rmtree("workspaces/demo")
    with pytest.raises(AlignError, match="no workspace found"):
        find_workspace(None)
    load_to_change(target)
    assert capsys.readouterr().out == f"workspace: {target} (a reproduction)\n"


def test_what_writes_names_its_workspace_first(capsys: pytest.CaptureFixture[str]) -> None:
    make("demo")
    with pytest.raises(AlignError):  # nothing was made that could be approved
        approve("rlhf-v1")
    assert capsys.readouterr().out.startswith("workspace: workspaces/demo\n")
    load_to_change(None, json=True)
    assert capsys.readouterr().err == "workspace: workspaces/demo\n"


READING = {
    *("annotate.list_", "chat.chat", "chat.export", "compare.compare", "compare.report"),
    *("data.list_batches", "lineage.lineage", "rewards.rewards", "status.status"),
}
"""Commands that change nothing in a workspace but its report."""


def test_every_verb_that_writes_says_so() -> None:
    """By source: a new command that takes its workspace silently has to be entered above."""
    silent = set()
    for path in Path(workspaces.__file__).parent.glob("*.py"):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef) or path.stem in ("common", "workspaces"):
                continue
            called = {
                call.func.id
                for call in ast.walk(function)
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
            }
            says = {"load_to_change", "name_workspace"} & called
            if {"load_workspace", "find_workspace"} & called and not says:
                silent.add(f"{path.stem}.{function.name}")
    # It prints another sentence, on what it reads from.
    assert silent - {"reproduce.reproduce"} == READING


def test_another_program_takes_no_workspace_over() -> None:
    make("demo")
    other = check_program({"name": "other", "workspace": "workspaces/demo"})
    for act in (keep_program, preflight):
        with pytest.raises(AlignError, match="demo's, and other would take it over") as caught:
            act(other)
        assert "--set workspace=DIR" in (caught.value.remedy or "")
    assert json.loads(Path("workspaces/demo/program.json").read_text())["name"] == "demo"
    keep_program(check_program({"name": "demo", "workspace": "workspaces/demo", "seed": 3}))
