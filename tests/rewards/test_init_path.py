"""A reward model that starts from a directory of the user's: its content is part of the work."""

from __future__ import annotations

from pathlib import Path

from reward_helpers import save_tiny_policy

from alignment.config.load import for_version, load_program
from alignment.pipeline.approval import Decisions
from alignment.pipeline.external_inputs import external_digest, reads_outside
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.ledger import Ledger
from alignment.pipeline.plan import build_plan

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.yaml"


def test_changed_weights_are_another_start(tmp_path: Path) -> None:
    start = save_tiny_policy(tmp_path / "start") / "model"
    settings = [f"workspace={tmp_path / 'work'}", f"rewards.init={start}"]
    program = load_program(DEMO, settings)
    before = external_digest(program, "reward")
    assert before is not None
    assert external_digest(program, "sample") is None
    (start / "model.safetensors").write_bytes(b"something else")
    assert external_digest(program, "reward") not in (None, before)


def test_checkpoints_of_the_program_are_inputs_and_not_outside(tmp_path: Path) -> None:
    program = load_program(DEMO, [f"workspace={tmp_path}"])
    assert external_digest(program, "reward") is None
    assert not reads_outside(program, "reward")


def test_a_versions_own_start_counts(tmp_path: Path) -> None:
    start = save_tiny_policy(tmp_path / "start") / "model"
    program = load_program(DEMO, [f"workspace={tmp_path / 'work'}"])
    own = program.versions[1].model_copy(update={"set": {"rewards.init": str(start)}})
    versions = (program.versions[0], own, *program.versions[2:])
    program = program.model_copy(update={"versions": versions})
    plan = build_plan(program, Decisions.load(program))
    nodes = {node.key: node for node in plan}
    assert "init" in nodes["rlhf-v1/reward_safety"].inputs
    assert "init" not in nodes["rlhf-v2/reward_safety"].inputs
    known = Fingerprints(program, Ledger(program.workspace), plan)
    seen = for_version(program, "rlhf-v2")
    assert known._outside(nodes["rlhf-v2/reward_safety"], seen) == external_digest(seen, "reward")
    assert known._outside(nodes["rlhf-v1/reward_safety"], for_version(program, "rlhf-v1")) is None
