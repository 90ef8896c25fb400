"""The record of what was taken back: whole or not at all, one at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from alignment.config.intake import IntakeConfig
from alignment.errors import StoreError
from alignment.preferences.exports import judged_ids
from alignment.preferences.intake import ingest
from alignment.preferences.store import PreferenceStore
from alignment.preferences.withdrawals import read_events, record

PROGRAM = """
# A child for every operation on a file, killed before it.
import os, shutil, signal, sys
from pathlib import Path
from alignment.preferences.store import PreferenceStore
from alignment.preferences.withdrawals import record

def die_at(number):
    def hook(event, _arguments):
        nonlocal number
        if event.startswith(("open", "os.", "shutil.", "tempfile.", "fcntl.")):
            number -= 1
            if number == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

clean, place = map(Path, sys.argv[1:])
for stop in range(1, 200):
    root = place / str(stop)
    shutil.copytree(clean, root)
    child = os.fork()
    if child == 0:
        die_at(stop)
        store = PreferenceStore(root)
        with store.writing():
            batch = store.batch("1")
            record(root, "withdrawn", "batch", batch.id, label=batch.name, versions=["rlhf-v1"],
                   reason="why", by="ana")
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    path = tmp_path / "a.jsonl"
    row = {"conversation": [{"role": "user", "content": "?"}], "chosen": "yes", "rejected": "no"}
    path.write_text(json.dumps(row | {"domain": "safety"}))
    made = PreferenceStore(tmp_path / "preferences")
    ingest(made, [path], IntakeConfig())
    return made


def withdraw(store: PreferenceStore, action: str = "withdrawn") -> None:
    batch = store.batch("1")
    with store.writing():
        record(
            store.root,
            action,  # type: ignore[arg-type]
            "batch",
            batch.id,
            label=batch.name,
            versions=[],
            reason=" why ",
            by="ana",
        )


def test_killed_anywhere_it_is_recorded_or_not(store: PreferenceStore, tmp_path: Path) -> None:
    place = tmp_path / "killed"
    command = [sys.executable, "-c", PROGRAM, str(store.root), str(place)]
    subprocess.run(command, check=True, timeout=300, cwd=Path(__file__).parents[2])
    recorded = []
    for root in sorted(place.iterdir(), key=lambda path: int(path.name)):
        after = PreferenceStore(root)
        recorded.append(after.batch("1").withdrawal is not None)
        if not recorded[-1]:
            withdraw(after)
        assert [event.reason for event in read_events(root)] == ["why"]
        assert judged_ids(after).tolist() == []
    assert recorded == sorted(recorded)
    assert recorded.count(False) > 5
    assert recorded.count(True) > 1


def test_the_newest_event_decides_and_all_stay(store: PreferenceStore) -> None:
    for action in ("withdrawn", "restored", "withdrawn"):
        withdraw(store, action)
    withdrawal = store.batch("1").withdrawal
    assert withdrawal is not None
    assert withdrawal.in_words().endswith(": why")
    assert [event.action for event in read_events(store.root)] == [
        "withdrawn",
        "restored",
        "withdrawn",
    ]
    assert len(store.heldout([withdrawal.target]) + store.training([withdrawal.target])) == 1


def test_a_damaged_record_is_an_error(store: PreferenceStore) -> None:
    withdraw(store)
    path = store.root / "withdrawals" / "0001.json"
    path.write_text(path.read_text()[:20])
    with pytest.raises(StoreError, match="record of a withdrawal is damaged") as error:
        store.batches()
    assert error.value.where == str(path)


def test_files_beside_the_records_are_none(store: PreferenceStore) -> None:
    withdraw(store)
    folder = store.root / "withdrawals"
    for name in ("0001 (copy).json", "notes.json", "._0001.json"):
        (folder / name).write_text("{}")
    assert len(read_events(store.root)) == 1
    withdraw(store, "restored")
    assert len(read_events(store.root)) == 2
    assert store.batch("1").withdrawal is None
