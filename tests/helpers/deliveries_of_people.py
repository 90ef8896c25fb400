"""Small deliveries in the native schema, and a program that learns from them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignment.config.load import check_program
from alignment.config.program import ProgramConfig
from alignment.execution.runner import Runner
from alignment.pipeline.readiness import available
from alignment.preferences.intake import ingest
from alignment.preferences.report import BatchReport
from alignment.preferences.store import PreferenceStore
from alignment.utils.files import sha256_file


def inbox_program(workspace: Path, versions: int = 2, need: int = 8) -> ProgramConfig:
    """Versions that learn from what people deliver; `need` comparisons begin one."""
    return check_program(
        {
            "name": "people",
            "workspace": str(workspace),
            "intake": {"source": "inbox", "heldout_share": 0.2},
            "versions": [{"name": f"rlhf-v{number}"} for number in range(1, versions + 1)],
            "orchestration": {"min_comparisons": need, "settle_seconds": 0},
            "tracking": {"enabled": False},
        }
    )


def rows(tag: str, count: int = 10, **fields: Any) -> list[dict[str, Any]]:
    """Comparisons, half of each domain."""
    return [
        {
            "conversation": [{"role": "user", "content": f"{tag} question {number}"}],
            "chosen": f"good {tag} {number}",
            "rejected": f"bad {tag} {number}",
            "domain": "safety" if number % 2 else "helpfulness",
            **fields,
        }
        for number in range(count)
    ]


def store_of(program: ProgramConfig) -> PreferenceStore:
    """The program's preference store."""
    return PreferenceStore(program.workspace / "preferences")


def deliver(program: ProgramConfig, name: str, lines: list[dict[str, Any]]) -> BatchReport:
    """Take a delivery in."""
    path = program.workspace.parent / f"{name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return ingest(store_of(program), [path], program.intake)


class RealIntake:
    """Invented stages, but a real intake.

    Args:
        stages: the invented ones (`fake_program.FakeStages`).
        before: called with the context before an intake.
    """

    def __init__(self, stages: Any, before: Callable[[Any], None] = lambda _context: None):
        self._stages = stages
        self._before = before

    def import_module(self, name: str) -> Any:
        """What the runner calls in place of `importlib.import_module`."""
        invented = self._stages.import_module(name)
        if name.endswith(".intake"):
            invented.run = self._run
        return invented

    def _run(self, context: Any) -> None:
        self._before(context)
        importlib.import_module("alignment.stages.intake").run(context)
        self._stages.ran.append(f"{context.version}/intake")
        # What the invented stages after it read.
        (context.out / "result.txt").write_text(sha256_file(context.out / "batch.json"))


def run_what_can_be_done(program: ProgramConfig) -> None:
    """`align run`, in plain Python and without its words."""
    done: set[str] = set()
    while left := [node for node in available(program) if node.key not in done]:
        with Runner(program) as runner:
            for node in left:
                runner.run_node(node)
                done.add(node.key)


def taken(program: ProgramConfig, version: str) -> list[str]:
    """The files that a version learned from, by the outputs of its intake."""
    from alignment.pipeline.fingerprints import Fingerprints

    fingerprints = Fingerprints.load(program)
    node = next(n for n in fingerprints.plan if n.key == f"{version}/intake")
    manifest = fingerprints.manifest(version, "intake")
    assert manifest is not None, f"{node.key} is not done"
    directory = fingerprints.ledger.committed_dir(version, "intake", manifest.fingerprint)
    ids = [batch["id"] for batch in json.loads((directory / "batch.json").read_text())["batches"]]
    names = {b.id: b.manifest["sources"][0]["file"] for b in store_of(program).batches()}
    return [names[id].removesuffix(".jsonl") for id in ids]
