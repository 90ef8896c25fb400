"""`compute.processes: 2` through the runner: launched, shared, committed, errors told."""

from __future__ import annotations

import contextlib
import shlex
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from alignment.config.load import check_program
from alignment.config.program import ProgramConfig
from alignment.errors import StageError
from alignment.execution.runner import Runner
from alignment.pipeline import sharding_choice
from alignment.pipeline.node import Node
from alignment.pipeline.records import Manifest
from alignment.pipeline.sharding_choice import Choice, settings_digest
from alignment.utils.metrics_log import Series
from tests.loop.conftest import PROGRAM


def fine_tuned(
    workspace: Path, processes: int, rate: float = 2e-3, **compute: Any
) -> tuple[Manifest, Path]:
    """The small program up to its supervised fine-tuning."""
    values = yaml.safe_load(PROGRAM)
    values["workspace"] = str(workspace)
    values["compute"] |= {"processes": processes, **compute}
    values["base"]["pretrain"]["steps"] = 4
    values["finetune"]["sft"] |= {"epochs": 1, "learning_rate": rate, "batch": 8}
    with Runner(check_program(values)) as runner:
        nodes = {node.key: node for node in runner.plan}
        for key in ("base/prepare", "base/pretrain", "sft/finetune"):
            record = runner.run_node(nodes[key])
        manifest = record.manifest
        return manifest, runner.ledger.committed_dir("sft", "finetune", manifest.fingerprint)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Path]:
    """Made by two processes of this machine."""
    return fine_tuned(tmp_path_factory.mktemp("two"), 2)


def test_two_processes_fine_tune_as_one(tmp_path: Path, pair: tuple[Manifest, Path]) -> None:
    one, alone = fine_tuned(tmp_path / "one", 1)
    two, shared = pair
    assert one.fingerprint != two.fingerprint
    assert two.metrics["first_loss"] == pytest.approx(one.metrics["first_loss"], rel=1e-5)
    assert two.metrics["steps"] == one.metrics["steps"]
    curves = [Series(place / "series.jsonl").rows() for place in (alone, shared)]
    assert len(curves[0]) == len(curves[1])
    assert sorted(p.name for p in shared.iterdir()) == sorted(p.name for p in alone.iterdir())


def test_shards_that_auto_chose_are_taken_by_all_processes_and_told(
    tmp_path: Path, pair: tuple[Manifest, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tight(node: Node, program: ProgramConfig, *_: Any) -> Choice:
        return Choice("full", 2e9, 1e9, 1.5e9, "a small CPU", settings_digest(node, program))

    # By the parent alone: its processes read what the workspace says.
    monkeypatch.setattr(sharding_choice, "choose", tight)
    auto, sharded = fine_tuned(tmp_path, 2, sharding="auto")
    whole, _ = pair
    assert auto.fingerprint == whole.fingerprint, "the choice changes rounding only"
    assert auto.metrics["sharded"] == 1.0
    assert "sharded" not in whole.metrics
    log = sharded.parent / "attempts" / "001.log"
    assert "sharding full: a process needs" in log.read_text()
    assert auto.metrics["loss"] == pytest.approx(whole.metrics["loss"], rel=1e-5)


def test_an_error_of_two_processes_is_told_once(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="diverged"):
        fine_tuned(tmp_path, 2, rate=1e38)


NODES = Path(__file__).parents[1] / "helpers" / "two_nodes.py"


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings for two processes on two machines."""
    monkeypatch.setenv("TWO_NODES", str(tmp_path / "addresses"))
    launch = shlex.join([sys.executable, str(NODES)]) + " {nodes} {per_node} {command}"
    return {"nodes": 2, "launch": launch}


def kill_rank_one(workspace: Path) -> None:
    """As soon as fine-tuning has made three steps."""
    curve = "versions/sft/finetune/**/series.jsonl"
    while not any(len(Series(path).rows()) > 2 for path in workspace.glob(curve)):
        time.sleep(0.01)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            stage = str(workspace) in words and words[-1] == "sft/finetune"
            if stage and process.environ().get("RANK") == "1":
                process.kill()


def test_two_machines_share_a_stage_and_go_on_after_a_loss(
    tmp_path: Path,
    nodes: dict[str, Any],
    pair: tuple[Manifest, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same bits as two processes of one machine."""
    there = tmp_path / "apart"
    threading.Thread(target=kill_rank_one, args=[there], daemon=True).start()
    with pytest.raises(StageError, match=r"loss of a process that told nothing \(rank 1\)"):
        fine_tuned(there, 2, **nodes)
    apart, shared = fine_tuned(there, 2, **nodes)
    with capsys.disabled():
        print(f"\ntwo machines met at {(tmp_path / 'addresses').read_text()}")
    here, beside = pair
    assert apart.fingerprint == here.fingerprint
    for name in ("model/model.safetensors", "series.jsonl"):
        assert (shared / name).read_bytes() == (beside / name).read_bytes(), name
