"""How the processes of a stage are started."""

from __future__ import annotations

import sys

import pytest
from pydantic import ValidationError

from alignment.config.compute import ComputeConfig
from alignment.execution.start_command import start_command

STAGE = ["-m", "a.module", "/work space", "sft/finetune"]


def command(compute: ComputeConfig, processes: int) -> list[str]:
    return start_command("a.module", STAGE[2:], processes, compute)


def test_one_process_needs_nobody_to_start_it() -> None:
    launch = "torchrun {command}"
    assert command(ComputeConfig(processes=2, launch=launch), 1) == [sys.executable, *STAGE]


def test_our_own_launcher_starts_those_of_this_machine() -> None:
    ours = [sys.executable, "-m", "alignment.execution.launcher", "2", *STAGE[1:]]
    assert command(ComputeConfig(processes=2), 2) == ours


def test_a_command_is_filled_in_word_by_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEAD_NODE", "gpu 7")
    launch = "srun --nodes={nodes} torchrun --nproc-per-node={per_node} --at '$HEAD_NODE' {command}"
    compute = ComputeConfig(processes=16, nodes=2, launch=launch)
    words = ["srun", "--nodes=2", "torchrun", "--nproc-per-node=8", "--at", "gpu 7"]
    assert command(compute, 16) == [*words, *STAGE]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"processes": 3, "nodes": 2, "launch": "x {command}"}, "cannot have equal shares"),
        ({"processes": 4, "nodes": 2}, "several nodes need launch"),
        ({"launch": "srun torchrun"}, "does not say where {command} goes"),
        ({"launch": "srun 'run {command}'"}, "is no command: 'command'"),
        ({"launch": "srun {command} 'and {command}'"}, "is no command: 'command'"),
        ({"launch": "srun -n ${{HEAD}} ${HEAD} {command}"}, "is no command: 'HEAD'"),
        ({"launch": "srun -n {gpus} {command}"}, "is no command: 'gpus'"),
        ({"launch": "srun 'torchrun {command}"}, "is no command: No closing quotation"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ComputeConfig.model_validate(settings)
    assert message in str(caught.value)
