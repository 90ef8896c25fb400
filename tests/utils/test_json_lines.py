"""JSON lines: a row each, whatever its texts hold, and nothing lost behind a damaged one."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignment.errors import DataError
from alignment.utils.json_lines import cut_tail, json_line, read_appended, read_jsonl, write_jsonl
from alignment.utils.metrics_log import Series

BREAKS = "one\u2028two\u2029three\x85four\nfive\x0bsix\x0cseven\x1ceight\x1dnine\x1eten\releven"
"""All that `str.splitlines` cuts at."""


def test_line_breaks_within_a_text_end_no_row(tmp_path: Path) -> None:
    rows = [{"text": BREAKS}, {"text": "plain"}]
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, rows)
    assert read_jsonl(path) == rows
    assert read_appended(path) == rows


def test_only_a_last_line_without_its_line_feed_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    whole = json_line({"text": BREAKS})
    for tail in (b'{"text": "ha', b"\xe9", b'{"text": "whole, but was it?"}'):
        path.write_bytes(whole.encode() + tail)
        assert read_appended(path) == [{"text": BREAKS}]
        cut_tail(path)
        assert path.read_text(encoding="utf-8") == whole
    cut_tail(path)
    assert path.read_text(encoding="utf-8") == whole


@pytest.mark.parametrize(
    "line",
    [b"{", b"\xff\xfe", b"[1]", b"null", b'"{"', b"{}{}", b"[" * 100_000],
)
def test_damage_within_a_file_is_told_and_costs_no_row(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    content = b'{"n": 1}\n\n' + line + b'\n{"n": 2}\n'
    path.write_bytes(content)
    for read in (read_jsonl, read_appended):
        with pytest.raises(DataError) as error:
            read(path)
        assert error.value.where == f"{path}:3"
    assert path.read_bytes() == content


def test_a_file_that_is_not_there_yet_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "moved" / "series.jsonl"
    assert read_appended(path) == []
    assert Series(path).rows() == []
    cut_tail(path)
    with pytest.raises(FileNotFoundError):
        read_jsonl(path)
