"""The code behind a stage's result does not change unnoticed.

If `test_every_change_is_declared` fails, some module that a stage imports has changed. Ask: can
the stage's outputs differ in a single bit from those of before?

- yes: `python -m alignment.pipeline.code_versions --bump STAGE`
- no:  `python -m alignment.pipeline.code_versions --neutral "why not"`

and commit the lock file. Finished work of a stage that was bumped is done again, by everybody.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from alignment.pipeline import code_versions
from alignment.pipeline.slices import stage_declaration


def test_every_change_is_declared() -> None:
    locked, now = code_versions.read_lock(), code_versions.current()
    undeclared = {c.stage: c.modules for c in code_versions.changes(locked)}
    assert not undeclared, f"{__doc__}\n{undeclared}"
    assert locked["stages"] == now["stages"], "a CODE_VERSION is new: run the command once"


def test_a_stage_depends_on_what_it_calls_and_not_on_what_is_shown() -> None:
    assert "promote" in code_versions.stages()
    modules = code_versions.closure("ppo")
    assert "alignment.training.ppo.losses" in modules
    assert "alignment.training.ppo.advantages" in modules
    assert "alignment.fastpath.training" in modules, "through the package's own file"
    assert "alignment.preferences.readers.hh" in code_versions.closure("intake")
    assert not [name for name in modules if name.startswith("alignment.reporting")]
    assert "alignment.training.ppo.losses" not in code_versions.closure("promote")


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stage `toy` that imports one module, in a package of its own."""
    (tmp_path / "stages").mkdir()
    text = 'CODE_VERSION = "3"\nREADS = ()\nfrom alignment.maths import double\n'
    (tmp_path / "stages" / "toy.py").write_text('"""A toy."""\n' + text)
    (tmp_path / "maths.py").write_text("def double(x):\n    return 2 * x\n")
    monkeypatch.setattr(code_versions, "ROOT", tmp_path)
    monkeypatch.setattr(code_versions, "STAGES", tmp_path / "stages")
    monkeypatch.setattr("alignment.pipeline.slices.STAGES", tmp_path / "stages")
    monkeypatch.setattr(code_versions, "LOCK", tmp_path / "stages" / "code_versions.json")

    def run(*words: str) -> int:
        code_versions.read_again()
        return code_versions.main(words)

    yield run, tmp_path / "maths.py", tmp_path / "stages" / "toy.py"
    code_versions.read_again()


def test_a_change_needs_a_word_and_a_comment_does_not(stage: Any, capsys: Any) -> None:
    run, maths, toy = stage
    assert run("--neutral", "the first lock") == 0
    maths.write_text('def double(x):\n    """Twice."""\n    return 2 * x  # exact\n')
    assert run() == 0
    maths.write_text("def double(x):\n    return x + x\n")
    assert run() == 1
    assert "toy: alignment.maths" in capsys.readouterr().out
    assert run("--neutral", "exact in floating point") == 0
    assert run() == 0
    lock = json.loads((toy.parent / "code_versions.json").read_text())
    assert lock["neutral"][-1] == {"stages": ["toy"], "reason": "exact in floating point"}
    maths.write_text("def double(x):\n    return 2.1 * x\n")
    assert run("--bump", "toy") == 0
    assert 'CODE_VERSION = "4"' in toy.read_text()
    assert run() == 0


def test_the_hash_is_of_the_code_and_not_of_the_python_that_read_it() -> None:
    shape = code_versions._shape(ast.parse('def f(x):\n    """Doc."""\n    return x\n'))
    assert "Doc" not in repr(shape)
    assert "type_params" not in repr(shape)


def test_work_in_bfloat16_is_kept_apart() -> None:
    declared = stage_declaration("ppo")
    assert declared.keeps_work("16", {"compute": {"dtype": "float32"}})
    assert not declared.keeps_work("16", {"compute": {"dtype": "bfloat16"}}), "it learned nothing"
    assert stage_declaration("sample").keeps_work("7", {"compute": {"dtype": "bfloat16"}})
