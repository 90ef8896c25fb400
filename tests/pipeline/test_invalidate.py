"""A stage that is done again, and what depends on it in its version; old outputs are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignment.config.load import check_program
from alignment.errors import AlignError
from alignment.execution.runner import Runner
from alignment.pipeline.invalidate import set_aside
from alignment.pipeline.ledger import Ledger
from alignment.preferences.store import PreferenceStore


@pytest.fixture
def done(tmp_path: Path, stages: Any) -> tuple[Any, Any]:
    """A finished program of two versions, and the invented stages that made it."""
    program = check_program(
        {
            "name": "again",
            "workspace": str(tmp_path / "workspace"),
            "versions": [{"name": "rlhf-v1", "ppo": True}, {"name": "rlhf-v2"}],
            "tracking": {"enabled": False},
        }
    )
    run(program)
    stages.ran.clear()
    return program, stages


def run(program: Any) -> None:
    with Runner(program) as runner:
        for node in runner.plan:
            runner.run_node(node)


def test_from_ppo_redoes_ppo_and_what_follows_in_the_version(done: tuple[Any, Any]) -> None:
    program, stages = done
    moved = set_aside(program, "rlhf-v1", "ppo")
    assert [path.parent.name for path in moved] == ["ppo", "evaluate", "promote", "collect"]
    assert all((path / "manifest.json").is_file() for path in moved)
    run(program)
    # The invented stages give the same bytes again, so version 2 stands as it is.
    assert stages.ran == [f"rlhf-v1/{name}" for name in ("ppo", "evaluate", "promote", "collect")]
    attempts = Ledger(program.workspace).attempts("rlhf-v1", "ppo")
    assert [attempt.status for attempt in attempts] == ["superseded", "done"]


def test_what_other_settings_made_stays(done: tuple[Any, Any]) -> None:
    program, stages = done
    other = program.model_copy(
        update={"promote": program.promote.model_copy(update={"margin": 0.5})}
    )
    run(other)
    run(program)  # A, B, A: nothing to do
    assert stages.ran == ["rlhf-v1/promote", "rlhf-v2/promote"]
    stages.ran.clear()
    moved = set_aside(program, "rlhf-v1", "promote")
    assert [path.name[-3:] for path in moved] == ["001"], "the first attempt, not B's second"
    run(other)
    assert stages.ran == [], "B's outputs are whole"
    run(program)
    assert stages.ran == ["rlhf-v1/promote"]


def test_an_unknown_stage_is_told_with_those_there_are(done: tuple[Any, Any]) -> None:
    program, _ = done
    with pytest.raises(AlignError, match="no stage 'pp0'") as caught:
        set_aside(program, "rlhf-v1", "pp0")
    assert "ppo" in (caught.value.remedy or "")


def test_an_intake_that_is_done_again_gives_its_batches_back(done: tuple[Any, Any]) -> None:
    program, _ = done
    inbox = program.model_copy(
        update={"intake": program.intake.model_copy(update={"source": "inbox"})}
    )
    store = PreferenceStore(program.workspace / "preferences")
    store.assign("rlhf-v1", ["0123456789ab"])
    set_aside(inbox, "rlhf-v1", "select")
    assert store.assignment("rlhf-v1") == ["0123456789ab"]
    set_aside(inbox, "rlhf-v1", "intake")
    assert store.assignment("rlhf-v1") is None
