"""Fingerprints along the plan, asked for by several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

from fake_program import fake_program, run_all

from alignment.pipeline.approval import Decisions
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.ledger import Ledger
from alignment.pipeline.plan import build_plan


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
