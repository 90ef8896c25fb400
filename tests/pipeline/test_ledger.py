"""Attempts, commits and what a dead process leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from alignment.errors import AlignError
from alignment.pipeline.ledger import Ledger, fingerprint, verify
from alignment.pipeline.node import Node
from alignment.pipeline.records import Manifest

NODE = Node("rlhf-v1", "sample", "sample", {"policy": ("sft", "finetune")})
DESCRIBED = {
    "code_version": "1",
    "config": {"sample": {"k": 4}},
    "options": {},
    "inputs": {},
    "seed": 7,
    "libraries": {},
    "seconds": 1.5,
    "peak_memory_mb": 10.0,
}
KEY = "a" * 64


def finish(ledger: Ledger, text: str = "hello", key: str = KEY) -> Manifest:
    attempt = ledger.begin(NODE, key)
    (ledger.partial_dir("rlhf-v1", "sample", key) / "out" / "x.txt").write_text(text)
    manifest = ledger.commit(attempt, DESCRIBED)
    attempt.status = "done"
    ledger.write_attempt(attempt)
    return manifest


def test_commit_makes_the_outputs_appear_with_their_digests(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.find("rlhf-v1", "sample", KEY) is None
    manifest = finish(ledger)
    found = ledger.find("rlhf-v1", "sample", KEY)
    assert found == manifest
    # sha256("hello")
    assert manifest.outputs == {
        "x.txt": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    }
    directory = ledger.committed_dir("rlhf-v1", "sample", KEY)
    assert verify(directory) == []
    (directory / "x.txt").write_text("changed")
    assert verify(directory) == ["x.txt"]
    assert not ledger.partial_dir("rlhf-v1", "sample", KEY).exists()


def test_outputs_are_on_the_disk_before_they_are_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path)
    attempt = ledger.begin(NODE, KEY)
    out = ledger.partial_dir("rlhf-v1", "sample", KEY) / "out"
    (out / "model").mkdir()
    (out / "model" / "weights").write_bytes(b"not flushed by whoever wrote it")
    safe: list[int] = []
    fsync, rename = os.fsync, Path.rename

    def flush(handle: int) -> None:
        safe.append(os.fstat(handle).st_ino)
        fsync(handle)

    def seal(path: Path, target: Path) -> Path:
        inside = [*path.rglob("*"), path]
        assert len(inside) == 4
        assert {item.stat().st_ino for item in inside} <= set(safe)
        # The manifest is the last file to be flushed.
        assert safe.index((path / "model" / "weights").stat().st_ino) < safe.index(
            (path / "manifest.json").stat().st_ino
        )
        safe.clear()
        return rename(path, target)

    monkeypatch.setattr("alignment.utils.files.os.fsync", flush)
    monkeypatch.setattr(Path, "rename", seal)
    ledger.commit(attempt, DESCRIBED)
    assert ledger.stage_dir("rlhf-v1", "sample").stat().st_ino in safe


def test_a_directory_without_manifest_is_never_read(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    directory = ledger.committed_dir("rlhf-v1", "sample", KEY)
    directory.mkdir(parents=True)
    (directory / "x.txt").write_text("half")
    assert ledger.find("rlhf-v1", "sample", KEY) is None
    assert ledger.current("rlhf-v1", "sample") is None


def test_a_stage_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    attempt = ledger.begin(NODE, KEY)
    with pytest.raises(AlignError, match="no outputs"):
        ledger.commit(attempt, DESCRIBED)


def test_killed_attempt_is_seen_and_its_scratch_is_handed_on(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        from alignment.pipeline.ledger import Ledger
        from alignment.pipeline.node import Node
        ledger = Ledger(Path({str(tmp_path)!r}))
        ledger.begin(Node("rlhf-v1", "sample", "sample"), {KEY!r})
        partial = ledger.partial_dir("rlhf-v1", "sample", {KEY!r})
        (partial / "scratch" / "shard-0").write_text("done work")
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    process = subprocess.run([sys.executable, "-c", script], check=False)
    assert process.returncode == -signal.SIGKILL
    ledger = Ledger(tmp_path)
    assert [attempt.status for attempt in ledger.attempts("rlhf-v1", "sample")] == ["killed"]
    again = ledger.begin(NODE, KEY)
    assert (again.number, again.resumed_from) == (2, 1)
    partial = ledger.partial_dir("rlhf-v1", "sample", KEY)
    assert (partial / "scratch" / "shard-0").read_text() == "done work"


def test_what_a_commit_left_behind_is_not_gone_on_from(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    finish(ledger)
    # Killed while the checkpoints were being deleted; then the outputs are set aside.
    partial = ledger.partial_dir("rlhf-v1", "sample", KEY)
    (partial / "scratch" / "step-000010").mkdir(parents=True)
    ledger.supersede("rlhf-v1", "sample", KEY)
    attempt = ledger.begin(NODE, KEY)
    assert attempt.resumed_from is None
    assert list((partial / "scratch").iterdir()) == []


def test_an_attempt_of_a_lost_container_is_closed(tmp_path: Path) -> None:
    import socket
    from dataclasses import replace

    from alignment.utils.locks import workspace_lock
    from alignment.utils.processes import born

    ledger = Ledger(tmp_path)

    def statuses() -> list[str]:
        return [attempt.status for attempt in ledger.attempts("rlhf-v1", "sample")]

    lost = ledger.begin(NODE, KEY)
    assert (lost.host, lost.pid) == (socket.gethostname(), os.getpid())
    # Nobody holds the workspace: it is a copy, and the process works in the original.
    assert statuses() == ["killed"]
    with workspace_lock(tmp_path):
        assert statuses() == ["running"]
        # The same host name and number in the next container: another process.
        ledger.write_attempt(replace(lost, born=born() - 3600))
        assert statuses() == ["killed"]
    # Another host name: it runs as long as somebody holds the workspace.
    ledger.write_attempt(replace(lost, host="another-container", pid=1))
    assert statuses() == ["killed"]
    with workspace_lock(tmp_path):
        assert statuses() == ["running"]
        # Who holds it now knows better, and begins again.
        again = ledger.begin(NODE, KEY)
        assert statuses() == ["killed", "running"]
    assert again.resumed_from == 1
    record = ledger.stage_dir("rlhf-v1", "sample") / "attempts" / "001.json"
    assert json.loads(record.read_text())["status"] == "killed"


def test_the_newest_unfinished_attempts_of_other_settings_are_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    removed: list[str] = []
    for age, letter in enumerate("bcdef"):
        ledger.begin(NODE, letter * 64, say=removed.append)
        made = ledger.partial_dir("rlhf-v1", "sample", letter * 64)
        for path in (*made.iterdir(), made):
            os.utime(path, (1000 + age, 1000 + age))
    attempt = ledger.begin(NODE, KEY, say=removed.append)
    assert attempt.resumed_from is None
    kept = {item.name[0] for item in ledger.unfinished("rlhf-v1", "sample")}
    assert kept == {KEY[0], "d", "e", "f"}
    assert len(removed) == 2
    assert "rlhf-v1/sample: removed an unfinished attempt of older settings (bbbb" in removed[0]
    assert ledger.begin(NODE, "e" * 64).resumed_from == 4, "back to those settings: it goes on"


def test_supersede_keeps_the_old_outputs(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    finish(ledger, "old")
    assert ledger.supersede("rlhf-v1", "sample", "b" * 64) is None
    aside = ledger.supersede("rlhf-v1", "sample", KEY)
    assert aside is not None
    assert (aside / "x.txt").read_text() == "old"
    assert ledger.find("rlhf-v1", "sample", KEY) is None
    assert ledger.attempts("rlhf-v1", "sample")[0].status == "superseded"
    finish(ledger, "new")
    assert [a.status for a in ledger.attempts("rlhf-v1", "sample")] == ["superseded", "done"]


def test_newest_is_what_a_run_came_by_last(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    first = finish(ledger, "old")
    second = finish(ledger, "new", "b" * 64)
    assert ledger.current("rlhf-v1", "sample") == second
    ledger.mark_current(first)  # settings were changed back: no new attempt
    assert ledger.current("rlhf-v1", "sample") == first
    # A workspace without the note, as older ones are: the last attempt counts.
    note = ledger.stage_dir("rlhf-v1", "sample") / "current"
    note.unlink()
    assert ledger.current("rlhf-v1", "sample") == second
    ledger.mark_current(first)
    ledger.supersede("rlhf-v1", "sample", KEY)
    assert ledger.current("rlhf-v1", "sample") is None, "the other one was made by other settings"


def test_fingerprint_depends_on_every_part() -> None:
    base = fingerprint(NODE, "1", {"sample": {"k": 4}}, 7, {"policy": "d1"})
    assert base == fingerprint(NODE, "1", {"sample": {"k": 4}}, 7, {"policy": "d1"})
    others = [
        fingerprint(NODE, "2", {"sample": {"k": 4}}, 7, {"policy": "d1"}),
        fingerprint(NODE, "1", {"sample": {"k": 5}}, 7, {"policy": "d1"}),
        fingerprint(NODE, "1", {"sample": {"k": 4}}, 8, {"policy": "d1"}),
        fingerprint(NODE, "1", {"sample": {"k": 4}}, 7, {"policy": "d2"}),
        fingerprint(
            Node("rlhf-v1", "sample", "sample", {}, {"bag": "all"}),
            "1",
            {"sample": {"k": 4}},
            7,
            {"policy": "d1"},
        ),
    ]
    assert len({base, *others}) == 6


HOLD = """
import sys, time
from pathlib import Path
from alignment.utils.locks import workspace_lock
with workspace_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_second_process_is_told_who_holds_and_a_dead_holder_is_taken_over(tmp_path: Path) -> None:
    from alignment.errors import LockedError
    from alignment.utils.locks import holder, refuse_if_held, workspace_lock

    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=f"pid {process.pid}"), workspace_lock(tmp_path):
            pass
        with pytest.raises(LockedError):
            refuse_if_held(tmp_path)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    refuse_if_held(tmp_path)
    with workspace_lock(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert holder(tmp_path) is None
