"""What `align serve` makes of an edited file, and of a version that is added to it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from deliveries_of_people import deliver, rows, store_of

from alignment.config.load import load_program
from alignment.pipeline.workspace import keep_program, kept_program
from alignment.utils.locks import workspace_lock
from flows.serving.notices import Notices

TEXT = """
name: series
workspace: WORKSPACE
intake: {source: inbox}
orchestration: {min_comparisons: 8}
versions:
  - name: rlhf-v1
"""


@pytest.fixture
def served(tmp_path: Path) -> Any:
    """A file, what is kept of it, and what the screen says at the next look."""
    path = tmp_path / "series.yaml"
    workspace = tmp_path / "workspace"
    path.write_text(TEXT.replace("WORKSPACE", str(workspace)))
    workspace.mkdir()
    keep_program(load_program(path))
    notices = Notices(path, (), workspace)

    def look() -> list[str]:
        said: list[str] = []
        notices.look(said.append)
        return said

    assert look() == []
    return SimpleNamespace(path=path, workspace=workspace, look=look)


def edit(served: Any, before: str, after: str) -> None:
    text = served.path.read_text()
    assert before in text
    served.path.write_text(text.replace(before, after))


def versions(served: Any) -> list[str]:
    return [version.name for version in kept_program(served.workspace).versions]


def test_an_added_version_is_taken_over(served: Any) -> None:
    edit(served, "  - name: rlhf-v1\n", "  - name: rlhf-v1\n  - name: rlhf-v2\n")
    assert served.look() == [f"rlhf-v2 added from {served.path}"]
    assert versions(served) == ["rlhf-v1", "rlhf-v2"]
    assert served.look() == []


def test_it_waits_for_the_present_run(served: Any) -> None:
    edit(served, "  - name: rlhf-v1\n", "  - name: rlhf-v1\n  - name: rlhf-v2\n")
    with workspace_lock(served.workspace):
        assert served.look() == ["rlhf-v2 is added when the present run ends"]
        assert served.look() == []
        assert versions(served) == ["rlhf-v1"]
    assert served.look() == [f"rlhf-v2 added from {served.path}"]
    assert versions(served) == ["rlhf-v1", "rlhf-v2"]


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("min_comparisons: 8", "min_comparisons: 9", "orchestration.min_comparisons 8 → 9"),
        ("name: rlhf-v1", "{name: rlhf-v1, ppo: true}", "versions that were there before"),
        ("min_comparisons: 8", "min_comparison: 8", "min_comparisons"),
    ],
)
def test_any_other_edit_asks_for_a_restart(
    served: Any, before: str, after: str, named: str
) -> None:
    kept = kept_program(served.workspace)
    edit(served, before, after)
    (said,) = served.look()
    assert "that is not in force" in said
    assert named in said
    assert kept_program(served.workspace) == kept
    assert served.look() == []


def test_what_comes_after_the_last_version_is_told_once(served: Any) -> None:
    program = kept_program(served.workspace)
    report = deliver(program, "a", rows("a"))
    assert served.look() == []
    store_of(program).assign("rlhf-v1", [report.id])
    deliver(program, "b", rows("b"))
    (said,) = served.look()
    assert said.startswith("10 comparisons wait (8 make a version), and every version has begun")
    assert "`- name: rlhf-v2`" in said
    assert served.look() == []


def test_the_watcher_begins_what_was_added(served: Any) -> None:
    from flows.serving.watcher import Watcher

    begun: list[int] = []
    program = kept_program(served.workspace)
    watcher = Watcher(program, [], lambda new: begun.append(len(new.versions)))
    watcher.follow()
    assert begun == []
    edit(served, "  - name: rlhf-v1\n", "  - name: rlhf-v1\n  - name: rlhf-v2\n")
    served.look()
    watcher.follow()
    watcher.follow()
    assert begun == [2]


def test_two_things_that_hold_at_once_are_each_told_once(served: Any) -> None:
    program = kept_program(served.workspace)
    report = deliver(program, "a", rows("a"))
    store_of(program).assign("rlhf-v1", [report.id])
    deliver(program, "b", rows("b"))
    edit(served, "  - name: rlhf-v1\n", "  - name: rlhf-v1\n  - name: rlhf-v2\n")
    with workspace_lock(served.workspace):
        assert len(served.look()) == 2
        assert served.look() == []
        assert served.look() == []
    assert served.look() == [f"rlhf-v2 added from {served.path}"]


def test_an_edit_that_was_undone_is_told_again_when_it_comes_back(served: Any) -> None:
    for _ in range(2):
        edit(served, "min_comparisons: 8", "min_comparisons: 9")
        assert len(served.look()) == 1
        edit(served, "min_comparisons: 9", "min_comparisons: 8")
        assert served.look() == []


def test_a_damaged_record_is_told_and_ends_nothing(served: Any) -> None:
    program = kept_program(served.workspace)
    report = deliver(program, "a", rows("a"))
    store_of(program).assign("rlhf-v1", [report.id])
    damaged = served.workspace / "preferences" / "assignments" / "rlhf-v1.json"
    sound = damaged.read_text()
    damaged.write_text("{")
    (said,) = served.look()
    assert str(damaged) in said
    assert served.look() == []
    damaged.write_text(sound)
    assert served.look() == []
