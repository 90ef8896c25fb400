"""A workspace that was copied or moved: its history follows it, and nothing is written behind."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fake_program import run_all

from alignment.errors import AlignError
from alignment.operations.doctor import examine
from alignment.pipeline.workspace import kept_program
from alignment.tracking.observer import tracker
from alignment.tracking.rebuild import catch_up, rebuild
from alignment.tracking.store import Store, moved_from
from alignment.tracking.sync import Sync


def places(workspace: Path) -> set[str]:
    """Where the database says that artifacts lie: of the experiment, of runs, of models."""
    with closing(sqlite3.connect(workspace / "mlflow.db")) as connection:
        found = {row[0] for row in connection.execute("SELECT artifact_uri FROM runs")}
        found |= {
            row[0]
            for row in connection.execute(
                "SELECT artifact_location FROM experiments WHERE name != 'Default'"
            )
        }
    return {place.removeprefix("file://").partition("/mlartifacts")[0] for place in found}


def snapshot(workspace: Path) -> dict[str, int]:
    return {
        str(path.relative_to(workspace)): path.stat().st_mtime_ns
        for path in workspace.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def copied(stages: Any, make_program: Any, tmp_path: Path) -> tuple[Path, Path]:
    """A finished program of one version with its history, and a copy of its workspace."""
    program = make_program(versions=1)
    run_all(program)
    assert Sync(program).step(alive=False) == []
    other = tmp_path / "a copy"
    shutil.copytree(program.workspace, other)
    return program.workspace, other


def test_a_copy_writes_nothing_into_the_original(
    copied: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    original, other = copied
    program = kept_program(other)
    assert moved_from(program) == original
    before = snapshot(original)
    [(finding, mended)] = [
        (finding, mended)
        for finding, mended in examine(program, hashes=False)
        if "copied or moved" in finding.what
    ]
    assert not mended
    assert str(original) in finding.what
    assert catch_up(program) == []
    assert "copied or moved" in caplog.text
    assert moved_from(program) is None
    assert places(other) == {str(other).replace(" ", "%20")}
    assert list(other.glob("mlflow-before-*.db")), "the old history is kept"
    assert list((other / "mlartifacts").rglob("*.json"))
    assert snapshot(original) == before
    assert places(original) == {str(original)}
    assert [finding.what for finding, _ in examine(program, hashes=False) if finding.mend] == []


def test_the_history_of_another_workspace_is_not_opened(copied: tuple[Path, Path]) -> None:
    with pytest.raises(AlignError, match="copied or moved"):
        Store(kept_program(copied[1]))


def test_doctor_and_rebuild_mend_it(copied: tuple[Path, Path]) -> None:
    original, other = copied
    shutil.rmtree(original)  # moved, not copied
    program = kept_program(other)
    assert any(mended for _, mended in examine(program, hashes=False, fix=True))
    assert moved_from(program) is None
    moved = other.with_name("moved")
    other.rename(moved)
    assert rebuild(kept_program(moved)).problems == []
    assert moved_from(kept_program(moved)) is None


def test_a_run_in_a_copy_says_so_and_goes_on(copied: tuple[Path, Path]) -> None:
    original, other = copied
    before = snapshot(original)
    said: list[str] = []
    program = kept_program(other)
    run_all(program, observers=tracker(program, said.append))
    assert any("copied or moved" in line for line in said)
    assert len(said) == 1
    assert moved_from(program) is None
    assert snapshot(original) == before


def test_a_link_at_the_old_place_leads_to_the_same_files(copied: tuple[Path, Path]) -> None:
    original, _ = copied
    moved = original.with_name("larger-disk")
    original.rename(moved)
    assert moved_from(kept_program(moved)) == original
    original.symlink_to(moved)
    program = kept_program(moved)
    assert moved_from(program) is None
    assert catch_up(program) == []
    assert not list(moved.glob("mlflow-before-*"))


def test_the_history_of_another_workspace_in_a_shared_store_is_not_taken_for_ours(
    stages: Any, make_program: Any, tmp_path: Path
) -> None:
    """The second workspace's attempts have the names of the first's, which are written already."""
    program = make_program(versions=1, tracking={"uri": f"sqlite:///{tmp_path / 'shared.db'}"})
    run_all(program)
    assert Sync(program).step(alive=False) == []
    shutil.rmtree(program.workspace)
    long_ago = {"started": "2001-02-03T04:05:06Z"}
    run_all(program)
    for path in program.workspace.glob("versions/*/*/attempts/*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | long_ago))
    with pytest.raises(AlignError, match="history of another workspace") as caught:
        catch_up(program)
    assert "tracking.experiment" in (caught.value.remedy or "")
    told = [finding.what for finding, _ in examine(program, hashes=False)]
    assert any("history of another workspace" in what for what in told)
    assert rebuild(program).problems == []
    assert catch_up(program) == []


def test_a_copy_does_not_share_an_experiment_of_a_server(
    copied: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a server no address of an artifact tells; nor do the attempts, which the copy has too."""
    original, other = copied
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'server.db'}")
    monkeypatch.setattr(Store, "_is_server", lambda _self: True)
    assert Sync(kept_program(original)).step(alive=False) == []
    with pytest.raises(AlignError, match=f"the workspace {original} on .* writes it") as caught:
        Sync(kept_program(other))
    assert "tracking.experiment" in (caught.value.remedy or "")
    assert Sync(kept_program(original)).store.taken_over is None, "the original goes on"
    # Without the original it was moved: it goes on, and says so once.
    shutil.rmtree(original)
    moved = Sync(kept_program(other))
    assert f"the workspace {original} on" in (moved.store.taken_over or "")
    assert moved.step(alive=False) == []
    assert Sync(kept_program(other)).store.taken_over is None
    # From another machine nobody can look: it is said. One path on two machines is a shared disk.
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    assert Sync(kept_program(other)).store.taken_over is None
    third = tmp_path / "third"
    shutil.copytree(other, third)
    monkeypatch.setattr("socket.gethostname", lambda: "a third machine")
    assert "on elsewhere wrote it" in (Sync(kept_program(third)).store.taken_over or "")


def test_the_doctor_finds_a_damaged_database_and_a_store_that_is_away(
    copied: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, _ = copied
    program = kept_program(original)
    (original / "mlflow.db").write_bytes(b"half of a database, and no more of it" * 99)
    ((damaged, _),) = examine(program, hashes=False)
    assert "does not answer" in damaged.what
    assert "align mlflow rebuild" in damaged.remedy
    uri = "http://127.0.0.1:9"  # the port to which everything may be sent, and nobody listens
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    elsewhere = program.tracking.model_copy(update={"uri": uri})
    (original / "mlflow.db").unlink()
    away = program.model_copy(update={"tracking": elsewhere})
    ((finding, _),) = examine(away, hashes=False)
    assert finding.where == uri
    assert "see that it is up" in finding.remedy
