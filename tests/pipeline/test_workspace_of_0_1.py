"""A workspace that release 0.1 made (commit 0d86619): it opens, and what is finished stays so.

The archive holds a program of two versions with PPO in the second, without MLflow's files. It is
one of the built-in world, which has changed since; most tests here look at it as at a program of
which only the code has changed.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest

from alignment.execution.runner import Runner
from alignment.operations.status import program_status
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.format import FORMAT, read_record
from alignment.pipeline.node import Node
from alignment.pipeline.reasons import why_run
from alignment.pipeline.records import Manifest
from alignment.pipeline.slices import stage_declaration
from alignment.pipeline.workspace import kept_program
from alignment.utils.files import sha256_file

ARCHIVE = Path(__file__).parents[1] / "data" / "workspace-0.1.tar.gz"


def version_of(node: Node) -> str:
    return stage_declaration(node.module).code_version


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("alignment.pipeline.plan.WORLD", {})
    return unpacked(tmp_path)


def unpacked(tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "workspace"


def contents(workspace: Path) -> dict[str, str]:
    return {str(path): sha256_file(path) for path in workspace.rglob("*") if path.is_file()}


def newest(known: Fingerprints, node: Node) -> Manifest:
    manifest = known.ledger.current(node.version, node.stage)
    assert manifest is not None
    return manifest


def test_every_finished_stage_still_counts_as_done(workspace: Path) -> None:
    """Also those whose code has changed since, where KEEPS says that their outputs stay valid."""
    before = contents(workspace)
    known = Fingerprints.load(kept_program(workspace))
    assert len(known.plan) == 24
    for node in known.plan:
        old = newest(known, node)
        assert old.format == 1
        assert known.manifest(node.version, node.stage) == old, why_run(node, known)
    outdated = {n.module for n in known.plan if newest(known, n).code_version != version_of(n)}
    kept = {"collect", "evaluate", "finetune", "intake", "ppo", "prepare", "promote"}
    kept |= {"pretrain", "reward", "sample", "select"}
    assert outdated == kept, "only KEEPS has these count"
    assert contents(workspace) == before, "a look writes nothing"


def test_the_old_world_is_shown_but_not_gone_on_with(tmp_path: Path) -> None:
    program = kept_program(unpacked(tmp_path))
    going_on, shown = Fingerprints.load(program), Fingerprints.load(program, any_code=True)
    assert [node.key for node in going_on.plan if going_on.find(node)] == []
    assert len([node for node in shown.plan if shown.find(node)]) == 24


def test_reward_models_that_knew_no_limit_of_prompts_count_where_one_is_set(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was none of their options: they go on reading whole prompts."""
    monkeypatch.setattr("alignment.pipeline.plan._cut", lambda _turn: {"max_prompt_tokens": 96})
    known = Fingerprints.load(kept_program(workspace))
    rewards = [node for node in known.plan if node.module == "reward"]
    assert all(node.options["max_prompt_tokens"] == 96 for node in rewards)
    assert [node.key for node in known.plan if not known.find(node)] == []


def test_changed_settings_of_today_are_told_from_those_of_then(workspace: Path) -> None:
    program = kept_program(workspace)
    other = program.model_copy(update={"ppo": program.ppo.model_copy(update={"iterations": 7})})
    known = Fingerprints.load(other)
    stale = {node.key: why_run(node, known) for node in known.plan if not known.find(node)}
    assert stale["rlhf-v2/ppo"] == "ppo.iterations 2 → 7"


def test_a_run_repeats_nothing_and_writes_the_program_in_todays_format(
    workspace: Path, stages: Any
) -> None:
    program = kept_program(workspace).model_copy(update={})
    finished = {
        (node.version, node.stage): newest(known, node)
        for known in [Fingerprints.load(program)]
        for node in known.plan
        if known.find(node)
    }
    assert len(finished) == 24
    with Runner(program) as runner:
        for node in runner.plan:
            record = runner.run_node(node)
            assert record.cached
            assert record.manifest == finished[node.version, node.stage]
    assert stages.ran == []
    assert read_record(workspace / "program.json")["format"] == FORMAT
    again = kept_program(workspace)
    assert again == program
    assert program_status(again).to_dict() == program_status(program).to_dict()


def test_it_is_compared_reported_and_traced(workspace: Path) -> None:
    from alignment.cli.results import compared, evaluated_stages
    from alignment.operations.lineage import lineage
    from alignment.reporting.html_report import write_report

    program = kept_program(workspace)
    comparison = compared(program, evaluated_stages(program, ()))
    assert comparison.newest == "rlhf-v2"
    assert set(comparison.decisions) == {"rlhf-v1", "rlhf-v2"}
    page = workspace / "report" / "index.html"
    write_report(evaluated_stages(program, ()), page, title="0.1")
    assert "rlhf-v2" in page.read_text(encoding="utf-8").lower()
    assert lineage(program, "rlhf-v2").libraries
