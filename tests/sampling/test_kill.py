"""Sampling killed at random moments and resumed: nothing is done twice, the bytes agree."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from pathlib import Path
from typing import Any

import psutil
from processes import launch
from sample_child import run_sample

from alignment.utils.files import sha256_file

SETTINGS: dict[str, Any] = {
    "prompts": 24,
    "k": 6,
    "generation": {"max_new_tokens": 40},
    "shard_prompts": 1,
    "search_prompts": 4,
    "grid": (0.8, 1.2),
    "temperature": "search",
}
KILLS = 10


def _start(root: Path, inputs: dict[str, Path]) -> Any:
    """A fresh process, forked from a server that has the libraries loaded already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sample_child"])
    given = {name: str(path) for name, path in inputs.items()}
    process = context.Process(target=run_sample, args=(str(root), given, SETTINGS))
    process.start()
    return process


def _finished(root: Path, inputs: dict[str, Path]) -> dict[str, str]:
    process = _start(root, inputs)
    process.join(300)
    assert process.exitcode == 0
    return _digests(root)


def _digests(root: Path) -> dict[str, str]:
    # What a killed process was writing begins with a dot; the ledger removes it (`begin`).
    found = (root / "out").rglob("[!.]*")
    files = sorted(path for path in found if path.is_file())
    return {str(path.relative_to(root)): sha256_file(path) for path in files}


def _shards(root: Path) -> dict[str, int]:
    found = (root / "scratch" / "shards").glob("shard-*")
    return {path.name: path.stat().st_mtime_ns for path in found}


def test_ten_random_kills(tmp_path: Path, stage_inputs: dict[str, Path]) -> None:
    whole = _finished(tmp_path / "whole", stage_inputs)
    broken = tmp_path / "broken"
    moments = random.Random(5)
    seen: dict[str, int] = {}
    for number in range(KILLS):
        process = _start(broken, stage_inputs)
        # Every second kill hits the process while it loads or searches, or between two shards.
        wanted = len(seen) + (moments.randint(1, 3) if number % 2 else 0)
        deadline = time.monotonic() + 120
        while len(_shards(broken)) < wanted:
            assert process.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.4 if number % 2 == 0 else 0.02))
        assert process.is_alive()
        process.kill()
        process.join()
        now = _shards(broken)
        assert {name: now[name] for name in seen} == seen
        seen = now
        assert not (broken / "out" / "samples.parquet").exists()
    assert 5 <= len(seen) < SETTINGS["prompts"]
    assert _finished(broken, stage_inputs) == whole
    now = _shards(broken)
    assert {name: now[name] for name in seen} == seen


def test_one_of_two_processes_killed_and_resumed_by_another_number(
    tmp_path: Path, stage_inputs: dict[str, Path]
) -> None:
    """Killed one of two, then the launcher with both; resumed by two, and by one."""
    whole = _finished(tmp_path / "whole", stage_inputs)
    given = json.dumps({name: str(path) for name, path in stage_inputs.items()})
    broken = tmp_path / "broken"
    seen: dict[str, int] = {}
    for victim in (1, None):
        launcher = launch(2, "sample_child", broken, given, json.dumps(SETTINGS))
        deadline = time.monotonic() + 120
        while len(_shards(broken)) < len(seen) + 4:
            assert launcher.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
        processes = psutil.Process(launcher.pid).children()
        if victim is None:
            launcher.kill()
        else:
            processes[victim].kill()
        assert launcher.wait(60) != 0
        assert psutil.wait_procs(processes, 60)[1] == []
        now = _shards(broken)
        assert {name: now[name] for name in seen} == seen
        seen = now
    assert 8 <= len(seen) < SETTINGS["prompts"]
    assert _finished(broken, stage_inputs) == whole
    assert {name: _shards(broken)[name] for name in seen} == seen
