"""JSON lines of any content, whole and damaged: no text changes, no row is lost or made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fuzzing import fuzzing
from hypothesis import given
from hypothesis import strategies as st

from alignment.errors import DamagedError
from alignment.utils.json_lines import cut_tail, json_line, read_appended, read_jsonl, write_jsonl

BREAKS = st.sampled_from(
    ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\0", "\ufeff", '"', "\\"]
)
HALF = st.sampled_from(["\ud800", "\udfff", "a\udc80b"])
TEXT = st.text(max_size=8) | st.lists(BREAKS | st.text(max_size=2), max_size=4).map("".join) | HALF
NUMBERS = st.integers(-(10**40), 10**40) | st.floats(allow_nan=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(TEXT, VALUES, max_size=3), max_size=4)
DAMAGE = st.binary(max_size=12) | st.sampled_from(
    [b"\n", b"{", b"[1]", b"null", b"{}{}", b"\0" * 9, b"\xef\xbb\xbf", b"[" * 2000, b"9" * 5000]
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file for all examples: making a directory takes longer than the test."""
    return tmp_path_factory.mktemp("lines") / "rows.jsonl"


@fuzzing
@given(rows=ROWS)
def test_what_is_written_is_read(path: Path, rows: list[dict[str, Any]]) -> None:
    content = "".join(map(json_line, rows)).encode()
    assert content.count(b"\n") == len(rows)
    path.write_bytes(content)
    assert read_jsonl(path) == read_appended(path) == rows


def test_a_file_written_whole_is_the_same_bytes(path: Path) -> None:
    rows = [{"text": "a\u2028b\ud800"}, {}]
    write_jsonl(path, rows)
    assert path.read_bytes() == "".join(map(json_line, rows)).encode()


@fuzzing
@given(rows=ROWS, more=ROWS, row=st.dictionaries(TEXT, VALUES, max_size=2), data=st.data())
def test_a_writer_may_die_within_a_line(
    path: Path,
    rows: list[dict[str, Any]],
    more: list[dict[str, Any]],
    row: dict[str, Any],
    data: st.DataObject,
) -> None:
    line = json_line(row).encode()
    whole = "".join(map(json_line, rows)).encode()
    path.write_bytes(whole + line[: data.draw(st.integers(0, len(line) - 1))])
    assert read_appended(path) == rows
    cut_tail(path)
    assert path.read_bytes() == whole
    with path.open("ab") as file:
        file.write("".join(map(json_line, more)).encode())
    assert read_appended(path) == rows + more


@fuzzing
@given(rows=ROWS, damage=DAMAGE, data=st.data())
def test_damage_costs_no_row_and_is_told_by_its_line(
    path: Path, rows: list[dict[str, Any]], damage: bytes, data: st.DataObject
) -> None:
    content = "".join(map(json_line, rows)).encode()
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.sampled_from([start, min(start + 1, len(content)), len(content)]))
    content = content[:start] + damage + content[end:]
    path.write_bytes(content)
    lines = content.split(b"\n")
    for read, counted in ((read_jsonl, lines), (read_appended, lines[:-1])):
        bad = [number for number, line in enumerate(counted, 1) if line.strip() and not sound(line)]
        if bad:
            with pytest.raises(DamagedError) as error:
                read(path)
            assert error.value.where == f"{path}:{bad[0]}"
        else:
            assert len(read(path)) == sum(1 for line in counted if line.strip())
    assert path.read_bytes() == content


def sound(line: bytes) -> bool:
    """Whether a line by itself is a JSON object."""
    try:
        return isinstance(json.loads(line.decode()), dict)
    except (ValueError, RecursionError):
        return False
