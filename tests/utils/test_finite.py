"""Training that is lost stops with a verdict, before the next step and the next checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_helpers import bytes_tokenizer
from pretrain_helpers import SMALL, TEXTS
from sft_helpers import settings, tune

from alignment.config.finetune import PretrainConfig
from alignment.errors import StageError
from alignment.training.pretrain import pretrain
from alignment.utils import checkpoint
from alignment.utils.finite import stop_if_exploded, stop_if_not_finite
from alignment.utils.metrics_log import Series


def test_limits() -> None:
    stop_if_exploded(5.0, None, "it", remedy="rest")
    stop_if_exploded(5.0, 5.0, "it", remedy="rest")
    with pytest.raises(StageError, match=r"it is 5.1, beyond the limit of 5") as found:
        stop_if_exploded(5.1, 5.0, "it", remedy="rest")
    assert "last good checkpoint is kept" in str(found.value)
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(StageError, match="not finite"):
            stop_if_not_finite(wrong, "it", remedy="rest")


def test_pretraining_that_diverges_keeps_its_last_good_checkpoint(tmp_path: Path) -> None:
    wild = PretrainConfig(**{**SMALL, "learning_rate": 1e38, "checkpoint_every": 1})
    series = Series(tmp_path / "series.jsonl")
    with pytest.raises(StageError, match="diverged"):
        pretrain(TEXTS, bytes_tokenizer(), wild, seed=0, scratch=tmp_path, series=series)
    rows = series.rows()
    assert 0 < len(rows) < SMALL["steps"]
    assert checkpoint.latest(tmp_path / "checkpoints") == len(rows)


def test_fine_tuning_that_diverges_keeps_its_last_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="diverged"):
        tune(tmp_path, settings(learning_rate=1e38, packing=False))
    rows = Series(tmp_path / "series.jsonl").rows()
    assert 0 < len(rows) < 12
    assert checkpoint.latest(tmp_path / "checkpoints") == len(rows)
