"""One padding for all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alignment.models.padding import micro_batches, pad


def test_rows_are_filled_up_behind_or_before() -> None:
    assert pad([[1, 2, 3], [4]], 0).tolist() == [[1, 2, 3], [4, 0, 0]]
    assert pad([[1, 2, 3], [4]], 9, left=True).tolist() == [[1, 2, 3], [9, 9, 4]]
    assert pad([[1], []], -100, width=2).tolist() == [[1, -100], [-100, -100]]


def test_kinds_and_emptiness() -> None:
    assert pad([[1]], 0).dtype == torch.int64
    assert pad([[0.5]], 0.0, width=2).tolist() == [[0.5, 0.0]]
    assert pad([[0.5]], 0.0).dtype == torch.float32
    assert pad([], 0).shape == (0, 0)
    assert pad([], 0, width=3).shape == (0, 3)


def test_nothing_is_cut() -> None:
    with pytest.raises(ValueError, match="a row of 3 does not fit into 2"):
        pad([[1, 2, 3]], 0, width=2)


@pytest.mark.parametrize("even", [False, True])
def test_micro_batches_bound_the_padded_tokens(even: bool) -> None:
    draw = np.random.default_rng(0)
    lengths = [*draw.integers(5, 60, size=50).tolist(), 300]
    sizes = draw.integers(1, 4, size=51).tolist()
    batches = micro_batches(lengths, 200, sizes=sizes, even=even)
    assert sorted(n for batch in batches for n in batch) == list(range(51))
    for batch in batches:
        rows = sum(sizes[n] for n in batch)
        assert len(batch) == 1 or rows * max(lengths[n] for n in batch) <= 200
    ordered = [lengths[n] for batch in batches for n in batch]
    assert ordered == sorted(ordered)


def test_even_micro_batches_leave_no_small_rest() -> None:
    assert [len(batch) for batch in micro_batches([10] * 9, 40)] == [4, 4, 1]
    assert [len(batch) for batch in micro_batches([10] * 9, 40, even=True)] == [3, 3, 3]
    assert micro_batches([], 40) == []
    assert micro_batches([2, 1, 2], 40, even=True) == [[1, 0, 2]]
