"""The fixed reference set: which demonstrations it takes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from alignment.rewards.reference_set import demonstrations
from alignment.utils.json_lines import write_jsonl


def test_a_line_separator_within_a_text_ends_no_demonstration(tmp_path: Path) -> None:
    rows = [{"messages": [], "response": f"one\u2028two {number}"} for number in range(4)]
    write_jsonl(tmp_path / "demonstrations.jsonl", rows)
    renderer: Any = SimpleNamespace(tokens=lambda _messages, response: response)
    taken = demonstrations(tmp_path / "demonstrations.jsonl", renderer, 2)
    assert taken == [rows[0]["response"], rows[3]["response"]]
