"""One padding for all."""

from __future__ import annotations

import pytest
import torch

from alignment.models.padding import pad


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
