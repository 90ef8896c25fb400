"""`compute.processes: 2` through the runner: launched, shared, committed, errors told."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from alignment.config.load import check_program
from alignment.errors import StageError
from alignment.execution.runner import Runner
from alignment.pipeline.records import Manifest
from alignment.utils.metrics_log import Series
from tests.loop.conftest import PROGRAM


def fine_tuned(workspace: Path, processes: int, rate: float = 2e-3) -> tuple[Manifest, Path]:
    """The small program up to its supervised fine-tuning."""
    values = yaml.safe_load(PROGRAM)
    values["workspace"] = str(workspace)
    values["compute"]["processes"] = processes
    values["base"]["pretrain"]["steps"] = 4
    values["finetune"]["sft"] |= {"epochs": 1, "learning_rate": rate, "batch": 8}
    with Runner(check_program(values)) as runner:
        nodes = {node.key: node for node in runner.plan}
        for key in ("base/prepare", "base/pretrain", "sft/finetune"):
            record = runner.run_node(nodes[key])
        manifest = record.manifest
        return manifest, runner.ledger.committed_dir("sft", "finetune", manifest.fingerprint)


def test_two_processes_fine_tune_as_one(tmp_path: Path) -> None:
    one, alone = fine_tuned(tmp_path / "one", 1)
    two, shared = fine_tuned(tmp_path / "two", 2)
    assert one.fingerprint != two.fingerprint
    assert two.metrics["first_loss"] == pytest.approx(one.metrics["first_loss"], rel=1e-5)
    assert two.metrics["steps"] == one.metrics["steps"]
    curves = [Series(place / "series.jsonl").rows() for place in (alone, shared)]
    assert len(curves[0]) == len(curves[1])
    assert sorted(p.name for p in shared.iterdir()) == sorted(p.name for p in alone.iterdir())


def test_an_error_of_two_processes_is_told_once(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="diverged"):
        fine_tuned(tmp_path, 2, rate=1e38)
