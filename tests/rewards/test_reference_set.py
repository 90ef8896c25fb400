"""The fixed reference set: which demonstrations it takes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignment.errors import DataError
from alignment.preferences.schema import Comparison
from alignment.rewards.mixture import Source
from alignment.rewards.reference_set import demonstrations, reference_answers
from alignment.utils.json_lines import write_jsonl


def test_a_line_separator_within_a_text_ends_no_demonstration(tmp_path: Path) -> None:
    rows = [{"messages": [], "response": f"one\u2028two {number}"} for number in range(4)]
    write_jsonl(tmp_path / "demonstrations.jsonl", rows)
    renderer: Any = SimpleNamespace(tokens=lambda _messages, response: response)
    taken = demonstrations(tmp_path / "demonstrations.jsonl", renderer, 2)
    assert taken == [rows[0]["response"], rows[3]["response"]]


def delivery(batch: str, domain: Any, count: int) -> list[Source]:
    return [
        Source(
            batch,
            Comparison(
                conversation=[{"role": "user", "content": f"{batch} {number}"}],
                chosen="good",
                rejected="bad",
                strength="better",
                domain=domain,
            ),
        )
        for number in range(count)
    ]


def test_both_domains_of_the_whole_first_version_fix_the_scale() -> None:
    """Deliveries of one domain each: by the first batch alone both models were on one domain."""
    heldout = [
        *delivery("a", "helpfulness", 90),
        *delivery("b", "safety", 30),
        *delivery("c", "safety", 50),  # of the second version
    ]
    texts: list[str] = []

    def tokens(conversation: Any, answer: str, *, finished: bool) -> Any:
        assert finished
        texts.append(conversation[0]["content"])
        return answer

    renderer: Any = SimpleNamespace(tokens=tokens)
    found = reference_answers(heldout, {"a", "b"}, renderer, 256)
    assert {domain: len(answers) for domain, answers in found.items()} == {
        "helpfulness": 128,
        "safety": 60,
    }
    assert {text[0] for text in texts} == {"a", "b"}
    with pytest.raises(DataError, match="no held-out safety comparison"):
        reference_answers(heldout, {"a"}, renderer, 256)
    assert reference_answers([], {"a"}, renderer, 256) == {}
