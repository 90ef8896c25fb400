"""`align bench reward`: its line says what was measured."""

from __future__ import annotations

from pathlib import Path

from alignment.bench.reward import run


def test_the_line_names_bench_and_implementation_as_the_others_do(
    stories: Path, shared: Path
) -> None:
    data = shared / "data" / "hh-rlhf" / "harmless.jsonl.gz"
    found = run(model=stories, data=data, pairs=4, batch=2, max_length=128, device="cpu")
    assert (found["bench"], found["implementation"]) == ("reward", "align")
    assert (found["pairs"], found["batch"]) == (4, 2)
