"""What a delivery may throw at intake: nothing of it may end in a traceback or half a batch."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alignment.config.intake import IntakeConfig
from alignment.errors import AlignError, DataError
from alignment.preferences.intake import ingest
from alignment.preferences.sources import find_sources
from alignment.preferences.store import PreferenceStore

ODD: list[Any] = [
    None, True, -1, 1e308, 10**400, float("nan"), "", " ", "\0", "\ud800", "a\udcff", "\u2028", [],
    {}, [[]], [None], ["chosen"], {"version": "\ud800", "temperature": 1}, "x" * 2000, "safety",
    {"version": "v", "temperature": -1}, [{"role": "user"}], [{"role": "user", "content": 3}],
]  # fmt: skip


def sound(number: int) -> list[dict[str, Any]]:
    """One row of four formats."""
    q, first, second = f"question {number}", f"yes {number}", f"no {number}"
    talk = f"\n\nHuman: {q}\n\nAssistant:"
    by = {"version": "sft", "temperature": 1.0}
    return [
        {
            "conversation": [{"role": "user", "content": q}],
            "chosen": first,
            "rejected": second,
            "domain": "safety",
            "safety_bin": "both_safe",
            "chosen_by": by,
            "annotator": "ann",
            "category": "c",
            "votes": ["chosen"],
        },
        {"chosen": f"{talk} {first}", "rejected": f"{talk} {second}", "annotator": "ann"},
        {"question": q, "answer_0": first, "answer_1": second, "score_0": 1, "score_1": number % 3},
        {
            "id": f"t{number}",
            "data": {"prompt": q, "answer1": first, "answer2": second},
            "annotations": [
                {"completed_by": 3, "result": [{"type": "p", "value": {"selected": "left"}}]}
            ],
        },
    ]


def spoil(value: Any, rng: random.Random) -> Any:
    """Something odd somewhere in a row."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        changed = {name: held for name, held in value.items() if name != key}
        return changed if rng.random() < 0.15 else changed | {key: spoil(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        return [spoil(value[0], rng), *value[1:]]
    return rng.choice(ODD)


def delivery(rng: random.Random, start: int) -> bytes:
    """Rows of one format, some odd, as lines, as an array, or packed; sometimes with a bad byte."""
    kind = rng.randrange(4)
    rows: list[Any] = [sound(start + number)[kind] for number in range(20)]
    rows = [spoil(row, rng) if rng.random() < 0.4 else row for row in rows]
    lines = [json.dumps(row).encode() for row in rows]
    shape = rng.randrange(3)
    data = b"[" + b",".join(lines) + b"]" if shape == 1 else b"\n".join(lines)
    data = gzip.compress(data) if shape == 2 else data
    if rng.random() < 0.3:
        place = rng.randrange(len(data))
        data = data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
    return data


def test_odd_values_anywhere_are_counted(tmp_path: Path) -> None:
    rng = random.Random(7)
    store = PreferenceStore(tmp_path / "preferences")
    config = IntakeConfig(domain="helpfulness", max_quarantine=1.0, heldout_share=0.2)
    taken = 0
    for number in range(60):
        path = tmp_path / f"delivery-{number}.jsonl"
        path.write_bytes(delivery(rng, 20 * number))
        before = len(store.batches())
        try:
            report = ingest(store, [path], config)
        except AlignError:
            assert len(store.batches()) == before
        else:
            rows = report.values["rows"]
            assert rows["read"] == rows["accepted"] + rows["quarantined"] + rows["dropped"]
            kept = store.training([report.id]) + store.heldout([report.id])
            assert len(kept) == rows["accepted"]
            taken += 1
        assert not (store.root / "incoming").exists()
    assert taken > 30


@pytest.mark.parametrize("field", ["annotator", "group", "category"])
@pytest.mark.parametrize(
    ("value", "reason"), [("\ud800", "bad_utf8"), ("x" * 1001, "too_long"), ("a\0", "nul")]
)
def test_names_are_checked_too(field: str, value: str, reason: str, tmp_path: Path) -> None:
    rows = [sound(number)[0] for number in range(3)]
    rows[1][field] = value
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = PreferenceStore(tmp_path / "preferences")
    report = ingest(store, [path], IntakeConfig(max_quarantine=0.5))
    assert report.values["reasons"] == {reason: 1}
    entry = json.loads((report.directory / "quarantine.jsonl").read_text())
    assert (entry["line"], entry["field"]) == (2, field)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04 and so on", "zip archive or an Excel sheet"),
        ('{"question": "q"}'.encode("utf-16"), "UTF-16"),
        (gzip.compress(b"\n" * (80 << 20)), "more than 200 times its size"),
        (b"\x00\xff" * 1000, "none of the first rows is a JSON object"),
        (b"[" * (1 << 20), "not a JSON array"),
        (b'[{"question": "q"} {"question": "r"}]', "no comma after element 1"),
    ],
    ids=["zip", "utf-16", "bomb", "zeros", "brackets", "comma"],
)
def test_what_is_no_delivery_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "delivery.jsonl"
    path.write_bytes(content)
    store = PreferenceStore(tmp_path / "preferences")
    with pytest.raises(DataError, match=said):
        ingest(store, [path], IntakeConfig())
    assert store.batches() == []


def test_a_mark_of_byte_order_is_no_damage(tmp_path: Path) -> None:
    rows = [json.dumps(sound(number)[0]) for number in range(3)]
    path = tmp_path / "from-windows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    report = ingest(PreferenceStore(tmp_path / "preferences"), [path], IntakeConfig())
    assert report.values["rows"]["accepted"] == 3


def test_a_misspelt_path_is_not_looked_for_on_a_hub(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file or directory"):
        find_sources(["data/weak-07.jsonl"])


def test_a_disk_that_is_really_full_leaves_nothing_behind(tmp_path: Path) -> None:
    """The kernel refuses to let a file grow, in the middle of writing."""
    path = tmp_path / "safety.jsonl"
    rng = random.Random(0)
    with path.open("w") as file:
        for number in range(3000):
            row = sound(number)[0] | {"chosen": rng.randbytes(300).hex()}
            file.write(json.dumps(row) + "\n")
    program = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from alignment.config.intake import IntakeConfig\n"
        "from alignment.errors import AlignError\n"
        "from alignment.preferences.intake import ingest\n"
        "from alignment.preferences.store import PreferenceStore\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "try: ingest(PreferenceStore(Path(sys.argv[1])), [sys.argv[2]], IntakeConfig())\n"
        "except AlignError as error: print(error)\n"
    )
    root = tmp_path / "preferences"
    done = subprocess.run(
        [sys.executable, "-c", program, str(root), str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "was not taken in" in done.stdout
    assert "File too large" in done.stdout
    assert [entry.name for entry in root.iterdir()] == ["lock"]
    assert ingest(PreferenceStore(root), [path], IntakeConfig()).values["rows"]["accepted"] == 3000
