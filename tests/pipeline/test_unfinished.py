"""Changed settings and the work of days: it is kept, and somebody is asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from alignment.cli.launch import UnfinishedWorkError, ask_about_unfinished
from alignment.errors import AlignError
from alignment.execution.runner import Runner
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.ledger import Ledger
from alignment.pipeline.reasons import left_behind, why_run


def run_until_it_breaks(program: Any, stages: Any, days: bool = True) -> None:
    """PPO dies at step 1200, after an hour or after a second."""

    def die(context: Any) -> None:
        if context.stage == "ppo":
            (context.scratch / "step-001200").mkdir(exist_ok=True)
            raise AlignError("out of luck")

    stages.before = die
    with pytest.raises(AlignError, match="out of luck"):
        run(program)
    stages.before = lambda _context: None
    record = Ledger(program.workspace).stage_dir("rlhf-v1", "ppo") / "attempts" / "001.json"
    values = json.loads(record.read_text())
    record.write_text(json.dumps(values | {"seconds": 3600.0 if days else 1.0}))


def run(program: Any) -> None:
    with Runner(program) as runner:
        for node in runner.plan:
            runner.run_node(node)


def changed(program: Any, **values: Any) -> Any:
    return program.model_copy(update={"ppo": program.ppo.model_copy(update=values)})


@pytest.fixture
def broken(make_program: Any, stages: Any) -> Any:
    program = make_program(versions=1, tracking={"enabled": False})
    run_until_it_breaks(program, stages)
    return program


def lines(program: Any) -> list[str]:
    known = Fingerprints.load(program)
    return left_behind(known.plan, known)


def test_a_plan_says_what_would_be_left_behind(broken: Any) -> None:
    assert lines(broken) == []
    assert lines(changed(broken, checkpoint_every=3)) == []
    assert lines(changed(broken, learning_rate=2e-6)) == [
        "rlhf-v1/ppo: unfinished attempt at step 1200 of other settings (60 min of work) is kept, "
        "not continued: ppo.learning_rate 1e-06 → 2e-06"
    ]


def test_nobody_to_ask_is_a_no(broken: Any) -> None:
    other = changed(broken, learning_rate=2e-6)
    nodes = Fingerprints.load(other).plan
    with pytest.raises(UnfinishedWorkError, match="step 1200") as refused:
        ask_about_unfinished(other, nodes, Console(force_terminal=False))
    assert refused.value.exit_code == 9
    assert "--discard-unfinished" in str(refused.value.remedy)
    ask_about_unfinished(broken, nodes, Console(force_terminal=False))


@pytest.mark.parametrize("answer", ["y", "n"])
def test_a_person_is_asked(broken: Any, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(force_terminal=True)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(console, "input", lambda _question: answer)
    other = changed(broken, learning_rate=2e-6)
    nodes = Fingerprints.load(other).plan
    if answer == "y":
        ask_about_unfinished(other, nodes, console)
    else:
        with pytest.raises(UnfinishedWorkError):
            ask_about_unfinished(other, nodes, console)


def test_a_second_of_work_is_not_worth_a_question(make_program: Any, stages: Any) -> None:
    program = make_program(versions=1, tracking={"enabled": False})
    run_until_it_breaks(program, stages, days=False)
    other = changed(program, learning_rate=2e-6)
    assert lines(other), "it is said all the same"
    ask_about_unfinished(other, Fingerprints.load(other).plan, Console(force_terminal=False))


def test_what_was_left_behind_is_gone_on_from_when_settings_come_back(
    broken: Any, stages: Any
) -> None:
    other = changed(broken, learning_rate=2e-6)
    run(other)
    assert lines(other) == [], "it has been decided"
    ledger = Ledger(broken.workspace)
    node = next(node for node in Fingerprints.load(broken).plan if node.stage == "ppo")
    assert why_run(node, Fingerprints.load(broken)) == "ppo.learning_rate 2e-06 → 1e-06"
    seen: list[Path] = []
    stages.before = lambda context: seen.extend(context.scratch.iterdir())
    run(broken)
    assert [path.name for path in seen if path.name.startswith("step")] == ["step-001200"]
    attempts = ledger.attempts("rlhf-v1", "ppo")
    assert [attempt.resumed_from for attempt in attempts] == [None, None, 1]
    assert [attempt.reason for attempt in attempts] == [
        "never run",
        "attempt 1 did not finish (failed)",
        "ppo.learning_rate 2e-06 → 1e-06",
    ]


def test_reasons_name_inputs_and_stages_that_were_set_aside(make_program: Any, stages: Any) -> None:
    program = make_program(versions=1, tracking={"enabled": False})
    run(program)
    more = program.model_copy(
        update={"sample": program.sample.model_copy(update={"k": 3, "prompts": 5})}
    )
    known = Fingerprints.load(more)
    nodes = {node.key: node for node in known.plan}
    assert why_run(nodes["rlhf-v1/sample"], known) == "sample.k 16 → 3; sample.prompts 4096 → 5"
    assert why_run(nodes["rlhf-v1/select"], known) == (
        "input sample must be made again (rlhf-v1/sample)"
    )
    done = known.ledger.current("rlhf-v1", "promote")
    assert done is not None
    known.ledger.supersede("rlhf-v1", "promote", done.fingerprint)
    again = Fingerprints.load(program)
    assert why_run(nodes["rlhf-v1/promote"], again) == "its outputs were set aside"


def test_an_attempt_after_outputs_were_set_aside_is_told(broken: Any, stages: Any) -> None:
    """What happened last counts, and not what happened before it."""
    run(broken)
    ledger = Ledger(broken.workspace)
    done = ledger.current("rlhf-v1", "ppo")
    assert done is not None
    ledger.supersede("rlhf-v1", "ppo", done.fingerprint)

    def die(_context: Any) -> None:
        raise AlignError("out of luck")

    stages.before = die
    with pytest.raises(AlignError, match="out of luck"):
        run(broken)
    known = Fingerprints.load(broken)
    node = next(node for node in known.plan if node.stage == "ppo")
    assert why_run(node, known) == "attempt 3 is unfinished (failed)"


def test_outputs_that_somebody_removed_are_told(make_program: Any, stages: Any) -> None:
    program = make_program(versions=1, tracking={"enabled": False})
    run(program)
    ledger = Ledger(program.workspace)
    done = ledger.current("rlhf-v1", "collect")
    assert done is not None
    shutil.rmtree(ledger.committed_dir("rlhf-v1", "collect", done.fingerprint))
    known = Fingerprints.load(program)
    node = next(node for node in known.plan if node.key == "rlhf-v1/collect")
    assert why_run(node, known) == "its outputs are gone or damaged"


def test_sections_that_no_longer_go_together_are_no_older_release(
    make_program: Any, stages: Any
) -> None:
    """What `prepare` recorded of the intake is impossible beside today's base model."""
    program = make_program(versions=1, tracking={"enabled": False})
    run(program)
    base = program.base.model_copy(update={"source": "path", "path": "somewhere"})
    intake = program.intake.model_copy(update={"source": "inbox"})
    other = program.model_copy(update={"base": base, "intake": intake})
    known = Fingerprints.load(other)
    node = next(node for node in known.plan if node.key == "rlhf-v1/intake")
    why = why_run(node, known)
    assert "intake.source simulated → inbox" in why
    assert "older release" not in why
