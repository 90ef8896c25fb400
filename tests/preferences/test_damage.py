"""Real rows with twelve kinds of damage mixed in: every bad row is found, every sound one kept."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignment.config.intake import IntakeConfig
from alignment.errors import AlignError, DataError
from alignment.preferences.intake import ingest
from alignment.preferences.prepare_files import native
from alignment.preferences.rows import DROPPED, Draft
from alignment.preferences.source_reader import SourceReader
from alignment.preferences.sources import find_sources
from alignment.preferences.store import PreferenceStore
from alignment.preferences.writer import BatchWriter

Row = dict[str, Any]


def real_rows(shared: Path) -> list[Row]:
    """Sound rows of HH in the native schema."""
    rows = []
    for source in find_sources([shared / "data" / "hh-rlhf"]):
        for _, draft in SourceReader(IntakeConfig()).open(source)[1]:
            if isinstance(draft, Draft):
                rows.append(native(draft))
    return rows


def changed(**changes: Any) -> Callable[[Row], bytes]:
    return lambda row: line({**row, **changes})


def line(row: Row) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode()


def swapped(row: Row) -> bytes:
    return line({**row, "chosen": row["rejected"], "rejected": row["chosen"]})


def two_users(row: Row) -> bytes:
    return line({**row, "conversation": [*row["conversation"], row["conversation"][-1]]})


DAMAGE: dict[str, tuple[Callable[[Row], bytes], str, str]] = {
    "empty": (changed(chosen=" \n"), "empty_answer", "chosen"),
    "identical": (
        lambda row: line({**row, "rejected": row["chosen"]}),
        "identical_answers",
        "rejected",
    ),
    "utf8": (
        lambda row: line(row).replace(b"Human", b"H").replace(b'"chosen": "', b'"chosen": "\xff'),
        "bad_utf8",
        "row",
    ),
    "surrogate": (
        lambda row: json.dumps({**row, "rejected": "a \ud800 b"}).encode(),
        "bad_utf8",
        "row",
    ),
    "nul": (lambda row: line({**row, "chosen": row["chosen"] + "\0"}), "nul", "chosen"),
    "type": (changed(rejected=17), "wrong_type", "rejected"),
    "strength": (changed(strength="massively"), "unknown_strength", "strength"),
    "roles": (two_users, "roles", "conversation"),
    "long": (changed(chosen="x" * 60_000), "too_long", "conversation"),
    "prompt": (changed(conversation=[]), "missing_prompt", "conversation"),
    "unsafe": (changed(safety_bin="rejected_safe"), "rejected_safe", "safety_bin"),
    "conflict": (swapped, "joined", "row"),
    "duplicate": (line, "duplicate", "row"),
    "broken": (lambda row: line(row)[:-20], "not_json", "row"),
    "typo": (lambda row: line({**row, "strenght": "better"}), "unknown_field", "strenght"),
}
AFTER = ("conflict", "duplicate")  # damage that leaves the sound row in place as well


def test_every_damaged_row_is_found_and_every_sound_row_kept(shared: Path, tmp_path: Path) -> None:
    rng = random.Random(5)
    rows = real_rows(shared)
    damaged = rng.sample(range(len(rows)), len(rows) // 20)
    kinds = list(DAMAGE)
    lines: list[bytes] = []
    expected: dict[int, tuple[str, str]] = {}
    sound = 0
    for number, row in enumerate(rows):
        if number not in damaged:
            lines.append(line(row))
            sound += 1
            continue
        name = kinds[damaged.index(number) % len(kinds)]
        damage, reason, field = DAMAGE[name]
        if name in AFTER:
            lines.append(line(row))
            sound += name == "duplicate"
            if name == "conflict":  # one row for each answer, of nobody: a tie
                expected[len(lines)] = ("tie", "votes")
        lines.append(damage(row))
        expected[len(lines)] = (reason, field)
    path = tmp_path / "delivery.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(lines)))
    store = PreferenceStore(tmp_path / "preferences")
    report = ingest(store, [path], IntakeConfig(max_characters=50_000))
    entries = [
        json.loads(text)
        for text in (report.directory / "quarantine.jsonl").read_text().splitlines()
    ]
    found = {}
    for entry in entries:
        assert entry["file"] == "delivery.jsonl.gz"
        assert entry["fate"] == ("dropped" if entry["reason"] in DROPPED else "quarantined")
        found[entry["line"]] = (entry["reason"], entry["field"].split(".")[0])
    assert found == expected
    assert {reason for reason, _ in expected.values()} >= {
        "empty_answer", "identical_answers", "bad_utf8", "nul", "wrong_type", "unknown_strength",
        "roles", "too_long", "missing_prompt", "rejected_safe", "joined", "tie", "duplicate",
    }  # fmt: skip
    counts = report.values["rows"]
    assert counts["accepted"] == sound
    assert counts["read"] == len(lines)
    assert counts["accepted"] + counts["quarantined"] + counts["dropped"] == counts["read"]
    kept = store.training([report.id]) + store.heldout([report.id])
    assert len(kept) == sound
    texts = {(row["chosen"], row["rejected"]) for row in rows}
    assert all((row.chosen, row.rejected) in texts for row in kept)


def test_later_batches_know_the_earlier_ones(shared: Path, tmp_path: Path) -> None:
    rows = real_rows(shared)[:300]
    store = PreferenceStore(tmp_path / "preferences")
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    first.write_bytes(b"\n".join(line(row) for row in rows[:200]))
    ingest(store, [first], IntakeConfig())
    lines = [line(row) for row in rows[200:]] + [line(rows[0]), swapped(rows[1])]
    second.write_bytes(b"\n".join(lines))
    report = ingest(store, [second], IntakeConfig())
    assert report.values["reasons"] == {"conflict_earlier": 1, "duplicate_earlier": 1}
    again = ingest(store, [first], IntakeConfig())
    assert again.already
    assert again.sequence == 1
    assert len(store.batches()) == 2


def test_a_delivery_with_too_many_bad_rows_is_refused_whole(tmp_path: Path) -> None:
    good = {
        "conversation": [{"role": "user", "content": "q"}],
        "chosen": "a",
        "rejected": "b",
        "domain": "safety",
    }
    rows = [{**good, "chosen": f"a{n}"} for n in range(8)] + [{**good, "chosen": ""}] * 2
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\n".join(line(row) for row in rows))
    store = PreferenceStore(tmp_path / "preferences")
    with pytest.raises(DataError, match=r"2 of 10 rows are bad .*answer without text") as caught:
        ingest(store, [path], IntakeConfig())
    assert store.batches() == []
    kept = Path(str(caught.value.where))
    assert [json.loads(text)["line"] for text in kept.read_text().splitlines()] == [9, 10]
    report = ingest(store, [path], IntakeConfig(max_quarantine=0.2))
    assert report.values["rows"]["accepted"] == 8


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(b'{"chosen": 1}' * 1000)[:-30], "broken"),
        (gzip.compress(b"x" * 2000), "more than 1,000 bytes"),
        (b'{"what": "ever"}\n', "format is not known"),
        (b"\x00\x01\x02\xff\xfe" * 20, "format is not known"),
        (b"", "the file is empty"),
        (b"[1, 2", "not a JSON array"),
        (b"PAR1 and then nothing", "parquet file is broken"),
    ],
    ids=["cut", "bomb", "unknown", "bytes", "empty", "json", "parquet"],
)
def test_broken_files_are_refused_with_a_clear_message(
    content: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "delivery.jsonl"
    path.write_bytes(content)
    store = PreferenceStore(tmp_path / "preferences")
    with pytest.raises(DataError, match=said):
        ingest(store, [path], IntakeConfig(max_bytes=1000))
    assert store.batches() == []
    assert not (tmp_path / "preferences" / "incoming").exists()


def test_a_batch_that_was_changed_afterwards_is_not_used(tmp_path: Path) -> None:
    row = {"question": "q", "answer_0": "a", "answer_1": "b", "score_0": 1, "score_1": 0}
    path = tmp_path / "webgpt.jsonl"
    path.write_bytes(b"\n".join(line({**row, "question": f"q{n}"}) for n in range(20)))
    store = PreferenceStore(tmp_path / "preferences")
    report = ingest(store, [path], IntakeConfig())
    assert len(store.training([report.id])) == 18
    with (report.directory / "comparisons.parquet").open("r+b") as file:
        file.seek(100)
        file.write(b"?")
    with pytest.raises(DataError, match="differs from what was ingested"):
        PreferenceStore(tmp_path / "preferences").training([report.id])


def test_a_store_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    row = {"question": "q", "answer_0": "a", "answer_1": "b", "score_0": 1, "score_1": 0}
    path = tmp_path / "webgpt.jsonl"
    path.write_bytes(line(row))
    with pytest.raises(AlignError, match="not taken in"):
        ingest(PreferenceStore(path / "preferences"), [path], IntakeConfig())
    with pytest.raises(DataError, match="no file or directory"):
        ingest(PreferenceStore(tmp_path / "p"), [tmp_path / "absent.jsonl"], IntakeConfig())


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    row = {"question": "q", "answer_0": "a", "answer_1": "b", "score_0": 1, "score_1": 0}
    path = tmp_path / "webgpt.jsonl"
    path.write_bytes(line(row))
    store = PreferenceStore(tmp_path / "preferences")
    with monkeypatch.context() as patched:
        patched.setattr(BatchWriter, "finish", full)
        with pytest.raises(AlignError, match="No space left"):
            ingest(store, [path], IntakeConfig())
    assert sorted(p.name for p in store.root.iterdir()) == ["lock"]
    assert ingest(store, [path], IntakeConfig()).sequence == 1
