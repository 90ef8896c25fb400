"""Fingerprints along the plan, asked for by several threads."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

from fake_program import fake_program, run_all

from alignment.pipeline import migrate
from alignment.pipeline.approval import Decisions
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.ledger import SHOWN, Ledger
from alignment.pipeline.plan import build_plan
from alignment.utils.files import MANIFEST, atomic_write_json, read_json


def test_one_thread_may_drop_missing_while_another_asks(tmp_path: Path, stages: Any) -> None:
    program = fake_program(tmp_path / "workspace", versions=1, tracking={"enabled": False})
    run_all(program)
    ledger = Ledger(program.workspace)
    plan = build_plan(program, Decisions.load(program))
    first, last = plan[0], plan[-1]
    looked_at, inserted = Event(), Event()

    class Slow(dict[Any, Any]):
        """Waits in the middle of being looked through for what another thread inserts."""

        def items(self) -> Any:
            for item in super().items():
                looked_at.set()
                inserted.wait(0.2)
                yield item

    known = Fingerprints(program, ledger, plan)
    known._fingerprints = Slow({(first.version, first.stage): known.of(first)})

    def ask() -> str | None:
        assert looked_at.wait(10)
        found = known.of(last)
        inserted.set()
        return found

    with ThreadPoolExecutor(2) as pool:
        again, asked = pool.submit(known.drop_missing), pool.submit(ask)
        again.result(10)
        assert asked.result(10) == Fingerprints(program, ledger, plan).of(last)
    assert asked.result() is not None


def test_a_setting_that_came_later_was_at_its_default(tmp_path: Path, stages: Any) -> None:
    """Whoever sets it now wants the stages again that ran without it."""
    program = fake_program(tmp_path / "workspace", versions=1, tracking={"enabled": False})
    run_all(program)
    known = Fingerprints.load(program)
    node = next(node for node in known.plan if node.key == "sft/collect")
    done = known.ledger.current(node.version, node.stage)
    assert done is not None
    directory = known.ledger.committed_dir(node.version, node.stage, done.fingerprint)
    record = read_json(directory / MANIFEST)
    del record["config"]["collect"]["generation"]["top_k"]  # as a release before it wrote it down
    record["fingerprint"] = "0" * 64
    shutil.copytree(directory, directory.with_name("0" * SHOWN))
    atomic_write_json(directory.with_name("0" * SHOWN) / MANIFEST, record)
    shutil.rmtree(directory)
    assert Fingerprints.load(program).find(node) is not None
    generation = program.generation.model_copy(update={"top_k": 5})
    now = program.model_copy(update={"generation": generation})
    migrate._fingerprints.clear()  # as a new process has it
    assert Fingerprints.load(now).find(node) is None
