"""Each kind of failure is told apart and answered as it deserves."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError, URLError

import pytest

from alignment.config.effective import effective
from alignment.config.load import check_program
from alignment.errors import DataError, StageError, Terminated
from alignment.execution.failures import in_words, kind_of, smaller
from alignment.execution.runner import Runner
from alignment.operations.status import program_status
from alignment.pipeline.approval import Decisions
from alignment.pipeline.disk_space import DiskFullError, needed_bytes
from alignment.pipeline.ledger import Ledger
from alignment.pipeline.node import Node
from alignment.pipeline.work import base_size


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory"),
        (RuntimeError("shapes do not fit"), "unknown"),
        (ConnectionResetError(), "transient"),
        (TimeoutError(), "transient"),
        (URLError("no route"), "transient"),
        (HTTPError("http://x", 503, "busy", {}, None), "transient"),  # type: ignore[arg-type]
        (HTTPError("http://x", 404, "none", {}, None), "unknown"),  # type: ignore[arg-type]
        (OSError(errno.ESTALE, "stale"), "transient"),
        (OSError(errno.ENOSPC, "full"), "disk"),
        (FileNotFoundError(errno.ENOENT, "none"), "unknown"),
        (DataError("bad row"), "known"),
        (KeyboardInterrupt(), "killed"),
        (SystemExit(), "killed"),
    ],
)
def test_kinds(error: BaseException, kind: str) -> None:
    assert kind_of(error) == kind


def test_the_cause_counts() -> None:
    error = RuntimeError("cannot save")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert kind_of(error) == "disk"
    told = StageError("no answer from the server")
    told.__cause__ = ConnectionResetError()
    assert kind_of(told) == "transient"
    told.__cause__ = ValueError("no JSON")
    assert kind_of(told) == "known"


def test_pieces_are_halved_and_nothing_else() -> None:
    program = check_program({"name": "x", "workspace": "w"})
    made, said = smaller(program, "finetune")
    before, after = effective(program).model_dump(), effective(made).model_dump()
    assert after["finetune"]["sft"].pop("per_device_train_batch_size") == 4
    assert before["finetune"]["sft"].pop("per_device_train_batch_size") == 8
    assert after["finetune"]["rejection"].pop("per_device_train_batch_size") == 4
    assert before["finetune"]["rejection"].pop("per_device_train_batch_size") == 8
    assert before == after
    assert said[0] == "finetune.sft.per_device_train_batch_size 8 → 4"
    assert smaller(program, "promote")[1] == []


def test_an_unset_piece_is_half_of_what_the_code_takes(tmp_path: Path) -> None:
    import torch

    from alignment.training.ppo.forward import piece_of

    def halved(hidden: int) -> int:
        pretrain = {"hidden": hidden, "intermediate": 2 * hidden, "layers": 4}
        program = check_program(
            {
                "name": "x",
                "workspace": "w",
                "base": {"pretrain": pretrain},
                "compute": {"device": "cpu"},
            }
        )
        made, said = smaller(program, "ppo")
        role: Any = SimpleNamespace(device=torch.device("cpu"), size=base_size(program).parameters)
        taken = piece_of(program.ppo, role)
        assert said == [f"ppo.max_tokens_per_micro_batch {taken} → {taken // 2}"]
        assert made.ppo.max_tokens_per_micro_batch == piece_of(made.ppo, role) == taken // 2
        return taken // 2

    assert (halved(64), halved(512)) == (3072, 1024)


@pytest.fixture
def program(tmp_path: Path) -> Any:
    """One version, quick retries."""
    return check_program(
        {
            "name": "fails",
            "workspace": str(tmp_path / "workspace"),
            "versions": [{"name": "rlhf-v1"}],
            "tracking": {"enabled": False},
            "orchestration": {"retry_seconds": 0.01, "retries": 2},
        }
    )


def failing(stages: Any, stage: str, errors: list[BaseException]) -> None:
    """Have `stage` raise these, one an attempt, then succeed."""

    def before(context: Any) -> None:
        if context.stage == stage and errors:
            raise errors.pop(0)

    stages.before = before


def run(program: Any, said: list[str]) -> list[str]:
    """Everything; returns the states of the attempts at rlhf-v1/finetune."""
    with Runner(program, say=said.append) as runner:
        for node in runner.plan:
            runner.run_node(node)
    return [a.status for a in Ledger(program.workspace).attempts("rlhf-v1", "finetune")]


def test_out_of_memory_is_tried_once_more_in_smaller_pieces(stages: Any, program: Any) -> None:
    seen: list[int] = []

    def before(context: Any) -> None:
        if context.version == "rlhf-v1" and context.stage == "finetune":
            seen.append(context.config.finetune.rejection.per_device_train_batch_size)
            if len(seen) == 1:
                raise MemoryError

    stages.before = before
    said: list[str] = []
    assert run(program, said) == ["failed", "done"]
    assert seen == [8, 4]
    assert "finetune.rejection.per_device_train_batch_size 8 → 4" in said[0]
    manifest = Ledger(program.workspace).current("rlhf-v1", "finetune")
    assert manifest is not None
    # What was asked for, not how much was done at once, names the result.
    assert manifest.config["finetune"]["rejection"]["per_device_train_batch_size"] == 8


def test_out_of_memory_twice_stops_with_the_setting_to_lower(stages: Any, program: Any) -> None:
    failing(stages, "select", [])

    def before(context: Any) -> None:
        if context.version == "rlhf-v1" and context.stage == "finetune":
            raise MemoryError

    stages.before = before
    with pytest.raises(StageError, match="MemoryError") as caught:
        run(program, [])
    assert "finetune.rejection.per_device_train_batch_size" in (caught.value.remedy or "")
    attempts = Ledger(program.workspace).attempts("rlhf-v1", "finetune")
    assert [attempt.status for attempt in attempts] == ["failed", "failed"]


def test_a_passing_failure_is_retried_and_told(stages: Any, program: Any) -> None:
    failing(stages, "select", [ConnectionResetError("peer"), TimeoutError("late")])
    said: list[str] = []
    run(program, said)
    attempts = Ledger(program.workspace).attempts("rlhf-v1", "select")
    assert [attempt.status for attempt in attempts] == ["failed", "failed", "done"]
    assert ["retry 1 of 2" in said[0], "retry 2 of 2" in said[1]] == [True, True]


def test_a_failure_that_does_not_pass_stops_after_the_retries(stages: Any, program: Any) -> None:
    failing(stages, "select", [ConnectionResetError("peer") for _ in range(5)])
    with pytest.raises(StageError, match="ConnectionResetError"):
        run(program, [])
    assert len(Ledger(program.workspace).attempts("rlhf-v1", "select")) == 3


def test_bad_data_stops_at_once(stages: Any, program: Any) -> None:
    failing(stages, "select", [DataError("row 3 is bad", where="x.jsonl:3", remedy="mend it")])
    with pytest.raises(DataError, match="row 3"):
        run(program, [])
    assert len(Ledger(program.workspace).attempts("rlhf-v1", "select")) == 1


def test_a_full_disk_stops_before_anything_is_written(
    stages: Any, program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [10**12]
    monkeypatch.setattr(
        "alignment.pipeline.disk_space.shutil.disk_usage",
        lambda _path: SimpleNamespace(free=free[0]),
    )

    def before(context: Any) -> None:
        if context.stage == "sample":
            free[0] = 11 * 2**20

    stages.before = before
    with pytest.raises(DiskFullError, match=r"rlhf-v1/select.*50 MiB, 11 MiB are free"):
        run(program, [])
    assert Ledger(program.workspace).attempts("rlhf-v1", "select") == []


def test_a_disk_that_fills_up_is_told_with_what_is_needed(stages: Any, program: Any) -> None:
    failing(stages, "ppo", [])
    failing(stages, "select", [OSError(errno.ENOSPC, "No space left on device")])
    with pytest.raises(DiskFullError, match="it needs about 50 MiB"):
        run(program, [])


@pytest.mark.parametrize("notes", ["begin", "write_attempt", "mark_current"])
def test_a_disk_too_full_for_the_ledger_is_told_too(
    stages: Any, program: Any, monkeypatch: pytest.MonkeyPatch, notes: str
) -> None:
    """Not even a line about the attempt can be written."""
    full = [False]
    written = getattr(Ledger, notes)

    def write(self: Ledger, *given: Any) -> Any:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(self, *given)

    def before(context: Any) -> None:
        if context.stage == "select":
            full[0] = True
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Ledger, notes, write)
    failing(stages, "ppo", [])
    stages.before = before
    with pytest.raises(DiskFullError, match="rlhf-v1/select: it needs about 50 MiB"):
        run(program, [])
    if notes != "write_attempt":  # there it went wrong at once; here in the next run
        with pytest.raises(DiskFullError, match="it needs about 50 MiB"):
            run(program, [])
    full[0], stages.before = False, lambda _context: None
    run(program, [])


def test_the_workspace_of_a_full_disk_can_be_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`align doctor` has to get in, though nobody can be told that it is there."""
    from alignment.errors import LockedError
    from alignment.utils.locks import workspace_lock

    def full(*_given: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("alignment.utils.locks.os.pwrite", full)
    said: list[str] = []
    first, second = workspace_lock(tmp_path, say=said.append), workspace_lock(tmp_path)
    with first, pytest.raises(LockedError), second:
        pass
    assert said == [f"the disk of {tmp_path} is full"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_outside_the_stages_a_full_disk_is_no_traceback_either(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    import signal

    from alignment.cli import main as command

    def full(_words: list[str]) -> None:
        raise OSError(number, "no room", "/somewhere/program.json")

    monkeypatch.setattr(command, "app", full)
    monkeypatch.setattr("sys.argv", ["align", "status"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            command.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == DiskFullError.exit_code
    assert "/somewhere/program.json" in capsys.readouterr().err


def test_sqlite_says_it_in_its_own_words() -> None:
    error = DataError("the cache cannot be used")
    error.__cause__ = sqlite3.OperationalError("database or disk is full")
    assert kind_of(error) == "disk"


def test_room_for_training_is_counted_by_hand(program: Any) -> None:
    from alignment.pipeline.plan import build_plan

    nodes = {node.key: node for node in build_plan(program, Decisions.load(program))}
    parameters = base_size(program).parameters
    # Final weights 4 bytes a parameter; two checkpoints of 12: weights and two moments.
    expected = 50 * 2**20 + int(parameters * 28)
    assert needed_bytes(program, nodes["rlhf-v1/finetune"]) == expected
    assert needed_bytes(program, nodes["rlhf-v1/select"]) == 50 * 2**20
    # What a server loads: adapters merged, for each policy that answers; PPO's old and new weights.
    served = program.model_dump() | {"inference": {"engine": "vllm"}}
    lora = {"finetune": {"sft": {"lora": {}}, "rejection": {}}}
    for changes, key, models in (
        ({}, "rlhf-v1/sample", 0),
        (lora, "rlhf-v1/sample", 1),
        (lora, "rlhf-v1/evaluate", 2),
    ):
        given = check_program(served | changes)
        assert needed_bytes(given, nodes[key]) == 50 * 2**20 + int(models * 4 * parameters)
    before = needed_bytes(program, Node("rlhf-v1", "ppo", "ppo", {}, {}))
    after = needed_bytes(check_program(served), Node("rlhf-v1", "ppo", "ppo", {}, {}))
    assert after - before == int(2 * 4 * parameters)


def test_a_stage_that_was_told_to_end_is_killed_not_failed(stages: Any, program: Any) -> None:
    failing(stages, "finetune", [KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        run(program, [])
    seen = {
        stage.stage: stage
        for version in program_status(program).versions
        for stage in version.stages
        if version.name == "sft"
    }
    assert (seen["finetune"].state, seen["evaluate"].state) == ("killed", "pending")
    assert seen["finetune"].error == "interrupted (Ctrl-C)"
    assert in_words(Terminated()) == "told to end: cancelled, or a SIGTERM"
    assert in_words(SystemExit(143)) == "told to end: cancelled, or a SIGTERM"
    assert in_words(ValueError("no")) == "ValueError: no"
