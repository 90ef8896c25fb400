"""A large file outside the workspace is read whole, once, and every change of it is noticed."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from alignment.config.load import load_program
from alignment.pipeline import external_inputs, file_digests
from alignment.pipeline.file_digests import digest_of_0_1, file_digest

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.yaml"


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files of more than 10 bytes count as large; the list fills with those that are read."""
    read: list[Path] = []

    def sha256(path: Path) -> str:
        read.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(file_digests, "LARGE", 10)
    monkeypatch.setattr(file_digests, "_END", 2)
    monkeypatch.setattr(file_digests, "_RECENT", 0)
    monkeypatch.setattr(file_digests, "sha256_file", sha256)
    return read


def test_a_change_in_the_middle_is_noticed_whatever_the_times_say(
    tmp_path: Path, small_is_large: list[Path]
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"ab" + 20 * b"." + b"yz")
    before = file_digest(path, tmp_path)
    assert before == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [file_digest(path, tmp_path) for _ in range(3)] == 3 * [before]
    assert small_is_large == [path]
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(10)
        file.write(b"x")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file_digest(path, tmp_path) != before
    assert digest_of_0_1(path) == hashlib.sha256(b"24abyz").hexdigest()


def test_other_texts_make_ppo_run_again(tmp_path: Path, small_is_large: list[Path]) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "a"}\n')
    given = [f"workspace={tmp_path / 'w'}", f"ppo.stop.texts={path}"]
    program = load_program(DEMO, given)
    before = external_inputs.external_digest(program, "ppo")
    path.write_text('{"text": "another"}\n')
    assert external_inputs.external_digest(program, "ppo") != before


def test_a_change_of_a_small_file_is_noticed_within_a_process(
    tmp_path: Path, small_is_large: list[Path]
) -> None:
    path = tmp_path / "reward.py"
    path.write_bytes(b"x = 1")
    before = file_digest(path, tmp_path)
    assert [file_digest(path, tmp_path) for _ in range(3)] == 3 * [before]
    assert small_is_large == [path]
    status = path.stat()
    path.write_bytes(b"x = 2")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file_digest(path, tmp_path) != before


def test_digests_are_kept_in_the_workspace_and_only_where_there_is_one(
    tmp_path: Path, small_is_large: list[Path]
) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(20 * b"a")
    workspace = tmp_path / "work"
    for _ in range(2):
        file_digest(path, workspace)
    assert small_is_large == [path, path]
    assert not workspace.exists()
    workspace.mkdir()
    (workspace / "cache").mkdir()
    (workspace / "cache" / "file-digests.json").write_bytes(b"\xff{")
    for _ in range(2):
        file_digest(path, workspace)
    assert small_is_large == 3 * [path]


def test_a_file_that_is_being_written_is_not_remembered(
    tmp_path: Path, small_is_large: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_digests, "_RECENT", 1e15)
    for path, size in ((tmp_path / "data.jsonl", 20), (tmp_path / "small.jsonl", 2)):
        path.write_bytes(size * b"a")
        small_is_large.clear()
        for _ in range(2):
            file_digest(path, tmp_path)
        assert small_is_large == [path, path]


def test_a_record_of_0_1_holds_until_a_file_is_touched(tmp_path: Path) -> None:
    start = tmp_path / "start"
    start.mkdir()
    (start / "model.safetensors").write_bytes(30 * b"a")
    program = load_program(DEMO, [f"workspace={tmp_path / 'work'}", f"rewards.init={start}"])
    old = external_inputs._digest_with(digest_of_0_1, [start])
    assert old is not None
    assert old != external_inputs.external_digest(program, "reward")

    def holds(recorded: str, moment: float) -> bool:
        return external_inputs.unchanged_since(program, "reward", recorded, moment)

    soon = time.time() + 10
    assert holds(old, soon)
    assert not holds(old, soon - 20)
    assert not holds("another", soon)
    assert not external_inputs.unchanged_since(program, "sample", old, soon)


def test_a_link_that_the_import_made_is_no_touch(tmp_path: Path) -> None:
    start = tmp_path / "start"
    start.mkdir()
    weights = start / "model.safetensors"
    weights.write_bytes(30 * b"a")
    program = load_program(DEMO, [f"workspace={tmp_path / 'work'}", f"rewards.init={start}"])
    old = external_inputs._digest_with(digest_of_0_1, [start])
    assert old is not None
    os.utime(weights, (1000, 1000))
    began = time.time() - 10
    assert not external_inputs.unchanged_since(program, "reward", old, began)
    os.link(weights, tmp_path / "linked")
    assert external_inputs.unchanged_since(program, "reward", old, began)
    os.utime(weights)
    assert not external_inputs.unchanged_since(program, "reward", old, began)
