"""JSON lines: a row each, whatever its texts hold."""

from __future__ import annotations

from pathlib import Path

from alignment.utils.files import read_jsonl, write_jsonl
from alignment.utils.metrics_log import Series

BREAKS = "one\u2028two\u2029three\x85four\nfive"  # all of which `str.splitlines` cuts at


def test_line_breaks_within_a_text_end_no_row(tmp_path: Path) -> None:
    rows = [{"text": BREAKS}, {"text": "plain"}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl") == rows


def test_a_curve_file_that_is_moved_while_somebody_looks_is_empty(tmp_path: Path) -> None:
    assert Series(tmp_path / "moved" / "series.jsonl").rows() == []
