"""`align bench intake`: the delivery it measures with is what it says."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from alignment.bench.intake import Shape, make_delivery, run


@pytest.mark.parametrize("shape", ["hh", "native"])
def test_a_delivery_of_real_sizes_without_repetition(
    shape: Shape, shared: Path, tmp_path: Path
) -> None:
    data = shared / "data" / "hh-rlhf" / "helpful.jsonl.gz"
    path = tmp_path / "delivery.jsonl"
    make_delivery(data, 4000, shape, path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(set(lines)) == len(lines) == 4000
    real = gzip.decompress(data.read_bytes()).splitlines()
    sizes = [sum(map(len, row.values())) for row in map(json.loads, real)]
    if shape == "hh":
        ours = [sum(map(len, row.values())) for row in map(json.loads, lines)]
        assert sum(ours) / len(ours) == pytest.approx(sum(sizes) / len(sizes), rel=0.05)
    found = run(data=data, rows=2500, shape=shape, packed=True)
    assert (found["rows"], found["accepted"]) == (2500, 2500)
    assert found["rows_per_s"] == pytest.approx(2500 / found["seconds"], rel=0.05)
