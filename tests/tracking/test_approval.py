"""A person's word: what waits for it, what it changes, when it counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignment.errors import AlignError
from alignment.execution.runner import Runner
from alignment.pipeline.approval import Decisions, WaitingForDecision, decide, find_decision
from alignment.pipeline.node import Node
from alignment.pipeline.plan import build_plan
from alignment.tracking.rebuild import note_decision
from alignment.utils.files import read_json


def nodes_of(program: Any) -> dict[str, Node]:
    return {node.key: node for node in build_plan(program, Decisions.load(program))}


def run_version(program: Any, name: str) -> None:
    with Runner(program) as runner:
        for node in list(runner.plan):
            if program.version_names.index(node.version) <= program.version_names.index(name):
                runner.run_node(node)


@pytest.fixture
def held(make_program: Any) -> Any:
    return make_program(versions=4, promote={"approval": "person"})


def test_next_version_waits_for_the_word(held: Any, stages: Any, run_all: Any) -> None:
    with pytest.raises(WaitingForDecision, match="rlhf-v1 is promoted"):
        run_all(held)
    assert stages.ran[-1] == "rlhf-v1/collect"
    assert Decisions.load(held).champion == "sft"  # nobody has said yes yet
    decide(held.workspace, "rlhf-v1", approved=True, by="ana")
    assert Decisions.load(held).awaited("rlhf-v1") is None
    assert Decisions.load(held).champion == "rlhf-v1"
    with pytest.raises(WaitingForDecision, match="rlhf-v2"):
        run_all(held)
    assert stages.ran[-1] == "rlhf-v2/collect"


def test_rejected_version_is_not_started_from(held: Any, stages: Any) -> None:
    run_version(held, "rlhf-v1")
    decide(held.workspace, "rlhf-v1", approved=True)
    run_version(held, "rlhf-v2")
    decide(held.workspace, "rlhf-v2", approved=False, reason="talks too long")
    assert Decisions.load(held).champion == "rlhf-v1"
    nodes = nodes_of(held)
    assert nodes["rlhf-v3/sample"].inputs["policy"] == ("rlhf-v1", "finetune")
    assert nodes["rlhf-v3/finetune"].inputs["start"] == ("rlhf-v1", "finetune")
    assert nodes["rlhf-v3/reward_safety"].inputs["init"] == ("rlhf-v1", "finetune")
    assert nodes["rlhf-v3/promote"].options == {"champion": "rlhf-v1"}
    assert nodes["rlhf-v3/collect"].options == {"earlier_version": "rlhf-v1"}
    # It stays in the history: its batch, its reward models and its evaluation still count.
    assert nodes["rlhf-v3/reward_safety"].inputs["intake/rlhf-v2"] == ("rlhf-v2", "intake")
    assert nodes["rlhf-v3/evaluate"].inputs["earlier/rlhf-v2"] == ("rlhf-v2", "evaluate")
    before = list(stages.ran)
    run_version(held, "rlhf-v3")
    assert all(key.startswith("rlhf-v3") for key in stages.ran[len(before) :])


def test_runner_follows_a_decision_taken_while_it_is_open(held: Any, stages: Any) -> None:
    with Runner(held) as runner:
        old = {node.key: node for node in runner.plan}
        for node in old.values():
            if node.version in ("base", "sft", "rlhf-v1"):
                runner.run_node(node)
        decide(held.workspace, "rlhf-v1", approved=False, reason="no")
        for node in old.values():
            if node.version == "rlhf-v2":
                runner.run_node(node)
        manifest = runner.fingerprints.manifest("rlhf-v2", "finetune")
    assert manifest is not None
    assert manifest.inputs["start"]["version"] == "sft"
    sample = next(node for node in runner.plan if node.key == "rlhf-v2/sample")
    assert sample.options == {"sampler": "sft"}


def test_a_run_that_waited_works_on_what_the_one_before_left(held: Any, stages: Any) -> None:
    newer = held.model_copy(update={"sample": held.sample.model_copy(update={"k": 7})})
    waited = Runner(held, latest=lambda: newer)
    with Runner(newer) as first:  # a person's run, with other settings, while the other one waits
        for node in first.plan:
            if node.version in ("base", "sft", "rlhf-v1"):
                first.run_node(node)
        decide(held.workspace, "rlhf-v1", approved=False, reason="no")
    with waited as runner:
        assert runner.program.sample.k == 7
        assert read_json(held.workspace / "program.json")["sample"]["k"] == 7
        start = next(node for node in runner.plan if node.key == "rlhf-v2/finetune")
    assert start.inputs["start"] == ("sft", "finetune")


def test_word_on_an_older_verdict_does_not_count(held: Any, stages: Any) -> None:
    run_version(held, "rlhf-v1")
    decide(held.workspace, "rlhf-v1", approved=True)
    changed = held.model_copy(update={"promote": held.promote.model_copy(update={"margin": 0.01})})
    run_version(changed, "rlhf-v1")
    assert find_decision(held.workspace, "rlhf-v1") is None
    assert Decisions.load(held).awaited("rlhf-v1") is not None


def test_settings_that_were_changed_back_are_judged_by_their_own_verdict(
    held: Any, stages: Any
) -> None:
    run_version(held, "rlhf-v1")
    decide(held.workspace, "rlhf-v1", approved=True)
    changed = held.model_copy(update={"promote": held.promote.model_copy(update={"margin": 0.01})})
    run_version(changed, "rlhf-v1")
    assert Decisions.load(changed).awaited("rlhf-v1") is not None
    ran = len(stages.ran)
    run_version(held, "rlhf-v1")
    assert len(stages.ran) == ran
    assert Decisions.load(held).awaited("rlhf-v1") is None
    assert Decisions.load(held).champion == "rlhf-v1"


def test_decisions_that_make_no_sense(held: Any, stages: Any) -> None:
    held.workspace.mkdir()
    with pytest.raises(AlignError, match="nothing to decide"):
        decide(held.workspace, "rlhf-v1", approved=True)
    run_version(held, "rlhf-v1")
    with pytest.raises(AlignError, match="needs a reason"):
        decide(held.workspace, "rlhf-v1", approved=False, reason=" ")
    decide(held.workspace, "rlhf-v1", approved=False, reason="dull")
    decide(held.workspace, "rlhf-v1", approved=True)  # changed one's mind in time
    run_version(held, "rlhf-v2")
    with pytest.raises(AlignError, match="next version has begun"):
        decide(held.workspace, "rlhf-v1", approved=False, reason="too late")


def test_damaged_record_is_told(held: Any, stages: Any) -> None:
    run_version(held, "rlhf-v1")
    path: Path = held.workspace / "approvals" / "rlhf-v1.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"version": "rlhf-v1"}))
    with pytest.raises(AlignError, match="damaged: approved"):
        Decisions.load(held).awaited("rlhf-v1")


def test_gate_alone_can_send_the_next_version_back(make_program: Any, stages: Any) -> None:
    program = make_program(versions=3, promote={"parent": "champion"})
    with Runner(program) as runner:
        for node in list(runner.plan):
            runner.run_node(node)
        manifest = runner.fingerprints.manifest("rlhf-v3", "finetune")
    assert manifest is not None
    assert manifest.inputs["start"]["version"] == "rlhf-v1"  # the gate did not pass v2
    latest = make_program(versions=3)
    assert nodes_of(latest)["rlhf-v3/finetune"].inputs["start"] == ("rlhf-v2", "finetune")


def test_alias_moves_with_the_word(program: Any, stages: Any, run_all: Any) -> None:
    from alignment.tracking.store import Store

    run_all(program)
    note_decision(program)
    client = Store(program).client
    name = "fake-policy"

    def holder(alias: str) -> str:
        return client.get_model_version_by_alias(name, alias).tags["rlhf.version"]

    assert (holder("champion"), holder("challenger")) == ("rlhf-v1", "rlhf-v2")
    decide(program.workspace, "rlhf-v2", approved=True)
    note_decision(program)
    assert holder("champion") == "rlhf-v2"
    decide(program.workspace, "rlhf-v2", approved=False, reason="a second look")
    note_decision(program)
    assert (holder("champion"), holder("challenger")) == ("rlhf-v1", "rlhf-v2")


def test_what_the_gate_decided_cannot_be_redecided_once_the_next_version_has_begun(
    make_program: Any, stages: Any
) -> None:
    program = make_program(versions=3)
    run_version(program, "rlhf-v2")
    for approved in (True, False):
        with pytest.raises(AlignError, match="the next version has begun") as caught:
            decide(program.workspace, "rlhf-v1", approved=approved, reason="late")
        assert "reject those after" in str(caught.value.remedy)
    assert find_decision(program.workspace, "rlhf-v1") is None
    # The newest version can be decided on, and by that the champion goes back.
    decide(program.workspace, "rlhf-v2", approved=False, reason="worse by hand")
    assert Decisions.load(program).champion == "rlhf-v1"
