"""What MLflow says is what the ledger says, whatever happened in between."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alignment.errors import DataError
from alignment.execution.runner import Runner
from alignment.pipeline.approval import Decisions
from alignment.pipeline.ledger import Ledger
from alignment.pipeline.plan import build_plan
from alignment.tracking.naming import milliseconds
from alignment.tracking.rebuild import rebuild
from alignment.tracking.sync import Sync
from alignment.utils.files import atomic_write_json, read_json
from alignment.utils.locks import workspace_lock


def test_a_finished_program(stages: Any, program: Any, run_all: Any, dump: Any) -> None:
    run_all(program)
    sync = Sync(program)
    assert sync.step(alive=False) == []
    runs = dump(sync.store)
    nodes = build_plan(program, Decisions.load(program))
    assert {node.key + "#1" for node in nodes} <= set(runs)
    assert {"BASE", "SFT", "RLHF-V1", "RLHF-V2", "RLHF progress"} <= set(runs)
    assert all(run["status"] == "FINISHED" for key, run in runs.items() if key != "registry")
    ledger = Ledger(program.workspace)
    for node in nodes:
        manifest = ledger.current(node.version, node.stage)
        assert manifest is not None
        run = runs[f"{node.key}#1"]
        assert run["name"] == f"{node.stage} #1"
        assert run["parent"] == node.version.upper()
        assert run["tags"]["rlhf.digest"] == manifest.digest
        assert run["params"]["seed"] == str(manifest.seed)
        assert run["curves"]["price/seconds"] == [(0, pytest.approx(manifest.seconds, rel=1e-5))]
        for data in manifest.datasets:
            assert (data["name"], data["digest"][:36], "training") in run["datasets"]
    reward = runs["rlhf-v1/reward_safety#1"]
    assert reward["curves"]["own_test_accuracy"] == [(0, 0.61)]
    assert reward["curves"]["curve/loss"] == [
        (10, 1.0), (20, 0.5), (30, 0.333333), (40, 0.25), (50, 0.2)
    ]  # fmt: skip
    assert len(reward["made"]) == 1
    assert reward["made"][0] in runs["rlhf-v1/select#1"]["read"]
    assert "undefined" not in runs["rlhf-v1/evaluate#1"]["curves"]
    assert not any("safetensors" in path for run in runs.values() for path in run.get("files", ()))


def test_versions_show_headlines_first(stages: Any, program: Any, run_all: Any, dump: Any) -> None:
    run_all(program)
    sync = Sync(program)
    sync.step(alive=False)
    runs = dump(sync.store)
    version = runs["RLHF-V2"]
    assert version["tags"]["rlhf.kind"] == "version"
    assert version["tags"]["rlhf.number"] == "2"
    assert version["tags"]["rlhf.promoted"] == "false"
    assert version["params"]["ppo"] == "true"
    assert len(version["params"]) <= 30
    assert version["curves"]["main/win_helpfulness"] == [(0, 0.7)]
    assert version["curves"]["range/win_helpfulness_low"] == [(0, 0.6)]
    assert version["curves"]["main/own_test_accuracy_safety"] == [(0, 0.62)]
    assert version["curves"]["other/category/rhyme"] == [(0, 0.3)]
    note = version["tags"]["mlflow.note.content"]
    assert "rlhf-v2 is not promoted." in note
    assert "| safety win rate vs SFT | 66.7 %" in note
    assert runs["BASE"]["tags"]["rlhf.kind"] == "base"
    progress = runs["RLHF progress"]["curves"]
    assert progress["main/win_helpfulness"] == [(0, 0.5), (1, 0.6), (2, 0.7)]


def test_accuracies_over_versions_are_on_one_test_set(
    stages: Any, program: Any, run_all: Any, dump: Any
) -> None:
    """0.61 and 0.62 are on two test sets; both models on the second's have 0.58 and 0.68. Nothing
    that several versions show under one name is on a test set of its own without saying so."""
    run_all(program)
    sync = Sync(program)
    sync.step(alive=False)
    runs = dump(sync.store)
    progress = runs["RLHF progress"]["curves"]
    for domain in ("helpfulness", "safety"):
        assert progress[f"main/same_test_accuracy_{domain}"] == [(1, 0.58), (2, 0.68)]
    assert not any("own_test" in name for name in progress)
    stated = ("own_test_accuracy", "same_test_accuracy", "accuracy_on/")
    for run in runs.values():
        for name in run.get("curves", ()):
            figure = name.rpartition("main/")[2].rpartition("range/")[2]
            assert "accuracy" not in figure or figure.startswith((*stated, "curve/")), name


def test_registry_and_aliases(stages: Any, program: Any, run_all: Any, dump: Any) -> None:
    run_all(program)
    sync = Sync(program)
    sync.step(alive=False)
    registry = dump(sync.store)["registry"]
    ledger = Ledger(program.workspace)
    final = ledger.current("rlhf-v2", "ppo")
    assert final is not None
    # SFT, V1 and V2 in order; V2 did not pass its gate.
    policies = list(registry["fake-policy"].values())
    policies = [registry["fake-policy"][number] for number in sorted(registry["fake-policy"])]
    assert [aliases for _digest, aliases in policies] == [[], ["champion"], ["challenger"]]
    assert policies[2][0] == final.digest
    assert set(registry) == {"fake-policy", "fake-reward-helpfulness", "fake-reward-safety"}


def test_a_model_that_was_deleted_in_mlflow_holds_nothing_up(
    stages: Any, program: Any, run_all: Any
) -> None:
    run_all(program)
    sync = Sync(program)
    sync.step(alive=False)
    first = Ledger(program.workspace).current("sft", "finetune")
    assert first is not None
    sync.client.delete_logged_model(sync.models.by_digest[first.digest])
    sync.client.delete_registered_model_alias("fake-policy", "champion")
    again = Sync(program)
    assert again.step(alive=False) == []
    assert first.digest not in again.models.by_digest
    (policy,) = again.client.search_registered_models("name = 'fake-policy'")
    assert policy.aliases.keys() == {"champion", "challenger"}


def test_again_changes_nothing(stages: Any, program: Any, run_all: Any, dump: Any) -> None:
    run_all(program)
    first = Sync(program)
    first.step(alive=False)
    before = dump(first.store)
    first.step(alive=False)
    assert dump(first.store) == before
    second = Sync(program)
    second.step(alive=False)
    assert dump(second.store) == before


def test_step_by_step_equals_all_at_once(
    stages: Any, program: Any, dump: Any, tmp_path: Path
) -> None:
    """A run per event, a failure, a kill and a stage done again: then the same from the ledger."""
    sync = Sync(program)
    broken = {"rlhf-v1/select", "rlhf-v2/ppo"}

    def before(context: Any) -> None:
        assert sync.step(alive=True) == []  # the stage is shown as running
        key = f"{context.version}/{context.stage}"
        if key in broken:
            broken.remove(key)
            raise DataError("row 7 is empty") if key == "rlhf-v1/select" else KeyboardInterrupt

    stages.before = before
    for _ in range(3):
        with Runner(program) as runner:
            try:
                for node in runner.plan:
                    runner.run_node(node)
                    assert sync.step(alive=True) == []
            except (DataError, KeyboardInterrupt):
                assert sync.step(alive=False) == []
    ledger = Ledger(program.workspace)
    manifest = ledger.current("rlhf-v2", "evaluate")
    assert manifest is not None
    ledger.supersede("rlhf-v2", "evaluate", manifest.fingerprint)
    with Runner(program) as runner:
        for node in runner.plan:
            runner.run_node(node)
    assert sync.step(alive=False) == []
    live = dump(sync.store)
    assert live["rlhf-v1/select#1"]["status"] == "FAILED"
    assert "row 7 is empty" in live["rlhf-v1/select#1"]["tags"]["mlflow.note.content"]
    assert live["rlhf-v1/select#2"]["tags"]["rlhf.continues"] == "select #1"
    assert live["rlhf-v2/ppo#1"]["status"] == "KILLED"
    assert live["rlhf-v2/evaluate#1"]["tags"]["rlhf.superseded"] == "true"
    assert live["RLHF-V1"]["status"] == live["RLHF-V2"]["status"] == "FINISHED"

    rebuilt = rebuild(program)
    assert rebuilt.problems == []
    assert rebuilt.kept is not None
    assert Path(rebuilt.kept).exists()
    assert dump(Sync(program).store) == live


def test_dead_process_is_shown_as_killed(stages: Any, program: Any, dump: Any) -> None:
    nodes = build_plan(program, Decisions.load(program))
    sync = Sync(program)
    with Runner(program) as runner:
        runner.run_node(nodes[0])
        attempt = runner.ledger.begin(nodes[1], runner.fingerprint(nodes[1]) or "")
        assert sync.step(alive=True) == []
        assert dump(sync.store)["base/pretrain#1"]["status"] == "RUNNING"
        assert dump(sync.store)["BASE"]["status"] == "RUNNING"
        # This very process, said to be dead: as when it is killed but not yet reaped.
        sync.step(alive=False, dead_pid=os.getpid())
    runs = dump(sync.store)
    assert runs["base/pretrain#1"]["status"] == "KILLED"
    assert runs["BASE"]["status"] == "KILLED"
    assert attempt.number == 1


def test_an_end_that_is_not_recorded_yet_comes_later(
    stages: Any, program: Any, run_all: Any, dump: Any
) -> None:
    """A look may fall between the commit of a stage and the record of its end."""
    run_all(program)
    path = Ledger(program.workspace).stage_dir("rlhf-v2", "collect") / "attempts" / "001.json"
    done = read_json(path) | {"ended": "2099-01-01T00:00:00Z"}
    atomic_write_json(path, done | {"status": "running", "ended": None, "seconds": None})
    sync = Sync(program)
    with workspace_lock(program.workspace):
        assert sync.step(alive=True) == []
    assert dump(sync.store)["rlhf-v2/collect#1"]["status"] == "RUNNING"
    atomic_write_json(path, done)
    assert sync.step(alive=False) == []
    runs = dump(sync.store)
    for name in ("rlhf-v2/collect#1", "RLHF-V2"):
        assert runs[name]["status"] == "FINISHED"
        assert runs[name]["times"][1] == milliseconds("2099-01-01T00:00:00Z")


def test_a_model_whose_end_is_recorded_within_the_same_second_is_linked(
    stages: Any, program: Any, dump: Any
) -> None:
    """A look between the two finds BASE done and its model not logged yet; to the next look the
    version's times, in whole seconds, are the same."""
    nodes = build_plan(program, Decisions.load(program))[:2]
    with Runner(program) as runner:
        for node in nodes:
            runner.run_node(node)
    path = Ledger(program.workspace).stage_dir("base", "pretrain") / "attempts" / "001.json"
    done = read_json(path)
    done["ended"] = done["started"]
    atomic_write_json(path, done | {"status": "running", "ended": None, "seconds": None})
    sync = Sync(program)
    with workspace_lock(program.workspace):
        assert sync.step(alive=True) == []
    assert dump(sync.store)["BASE"]["made"] == []
    atomic_write_json(path, done)
    assert sync.step(alive=True) == []
    assert len(dump(sync.store)["BASE"]["made"]) == 1


@pytest.mark.parametrize("call", ["log_batch", "log_inputs", "set_terminated", "log_artifact"])
def test_dying_while_writing(
    call: str, stages: Any, program: Any, run_all: Any, dump: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever request breaks, the next synchronisation mends it, and nothing is there twice."""
    run_all(program)
    whole = Sync(program)
    real = getattr(whole.client, call)
    count = iter(range(10_000))

    def flaky(*args: Any, **values: Any) -> Any:
        result = real(*args, **values)
        if next(count) % 3 == 1:
            raise OSError("the server went away")  # after it did what was asked
        return result

    monkeypatch.setattr(whole.client, call, flaky)
    problems = whole.step(alive=False)
    assert any("the server went away" in problem for problem in problems)
    monkeypatch.undo()
    stages_mended = Sync(program)
    assert stages_mended.step(alive=False) == []
    mended = dump(stages_mended.store)
    rebuild(program)
    assert mended == dump(Sync(program).store)


def test_other_settings_are_another_run(stages: Any, program: Any, run_all: Any) -> None:
    run_all(program)
    sync = Sync(program)
    sync.step(alive=False)
    other = program.model_copy(update={"seed": program.seed + 1})
    run_all(other)
    again = Sync(other)
    assert again.step(alive=False) == []
    found = again.client.search_runs([again.store.experiment], "tags.`rlhf.version` = 'rlhf-v1'")
    kinds = [run.data.tags["rlhf.kind"] for run in found if run.info.run_name.startswith("RLHF-V1")]
    assert sorted(kinds) == ["superseded", "version"]


def test_ended_between_commit_and_note(stages: Any, program: Any, dump: Any) -> None:
    """Killed after the rename, before the attempt's record: the work counts as done."""
    node = build_plan(program, Decisions.load(program))[0]
    with Runner(program) as runner:
        runner.run_node(node)
        attempt = runner.ledger.attempts(node.version, node.stage)[0]
        runner.ledger.write_attempt(replace(attempt, status="running", ended=None, pid=2**22 + 1))
    sync = Sync(program)
    sync.step(alive=False)
    assert dump(sync.store)["base/prepare#1"]["status"] == "FINISHED"
