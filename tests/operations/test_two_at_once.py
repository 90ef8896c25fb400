"""Verbs on one store by several processes at once: each is recorded once, and none is lost."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from deliveries_of_people import (
    RealIntake,
    deliver,
    inbox_program,
    rows,
    run_what_can_be_done,
    store_of,
    taken,
)

from alignment.execution import runner
from alignment.operations.status import done_stages
from alignment.operations.withdraw import block, unblock
from alignment.preferences.store import PreferenceStore
from alignment.preferences.what_counts import EXCLUDED
from alignment.preferences.withdrawals import read_events

ROOT = Path(__file__).parents[2]
VERB = """
import sys, json
sys.path.insert(0, "tests/helpers")
from pathlib import Path
from deliveries_of_people import inbox_program, store_of
from alignment.errors import AlignError
from alignment.operations.withdraw import block, restore, withdraw
from alignment.preferences.intake import ingest

program = inbox_program(Path(sys.argv[1]))
said = []
print("ready", flush=True)
sys.stdin.readline()
for words in json.loads(sys.argv[2]):
    try:
        verb, *words = words
        if verb == "withdraw":
            said.append(withdraw(program, words[0], words[1:], reason="").comparisons)
        elif verb == "restore":
            said.append(restore(program, words[0], words[1:]).comparisons)
        elif verb == "block":
            said.append(block(program, words[0], reason="").comparisons)
        else:
            said.append(ingest(store_of(program), words, program.intake).values["rows"]["accepted"])
    except AlignError as error:
        said.append(error.message)
print(json.dumps(said))
"""


def at_once(program: Any, *verbs: list[list[str]]) -> list[list[Any]]:
    """What each of several processes said that begin at the same moment."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", VERB, str(program.workspace), json.dumps(words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for words in verbs
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    return [json.loads(child.communicate(timeout=300)[0]) for child in children]


@pytest.fixture
def program(tmp_path: Path) -> Any:
    """Four batches of ten."""
    made = inbox_program(tmp_path / "workspace")
    for number in range(4):
        deliver(made, f"d{number}", rows(f"d{number}", annotator=f"person {number}"))
    return made


def test_every_withdrawal_is_recorded_and_counts_its_own(program: Any) -> None:
    single = [[["withdraw", "1", str(line)] for line in range(side, 11, 2)] for side in (1, 2)]
    said = at_once(program, *single, [["withdraw", "2"], ["restore", "2"]], [["block", "person 2"]])
    assert said == [[-1] * 5, [-1] * 5, [-10, 10], [-10]]
    events = read_events(store_of(program).root)
    assert len(events) == 13
    paths = sorted((store_of(program).root / "withdrawals").iterdir())
    assert [int(path.stem) for path in paths] == list(range(1, 14))


def test_of_two_on_the_same_batch_one_is_refused(program: Any) -> None:
    said = at_once(program, [["withdraw", "3"]], [["withdraw", "3"]])
    (refused,) = (word for (word,) in said if isinstance(word, str))
    assert "was withdrawn by" in refused
    assert len(read_events(store_of(program).root)) == 1


def test_a_withdrawal_beside_intake(program: Any, tmp_path: Path) -> None:
    """Before or after it, but never within: the rows are duplicates of all of it or of none."""
    paths = []
    for number in range(4):
        path = tmp_path / f"same{number}.jsonl"
        lines = [*rows(f"d{number}"), *rows(f"more{number}", 2)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        paths.append(str(path))
    taken, back = at_once(
        program,
        [["ingest", path] for path in paths],
        [["withdraw", str(number)] for number in (1, 2, 3, 4)],
    )
    assert set(taken) <= {2, 12}
    assert back == [-10] * 4
    store = store_of(program)
    standing = [batch.id for batch in store.batches() if batch.withdrawal is None]
    assert len(store.index(standing)["id"]) == sum(taken)


def test_a_delivery_that_comes_while_an_intake_begins_is_learned_from(
    program: Any, monkeypatch: pytest.MonkeyPatch, real_intake: None
) -> None:
    unassigned = PreferenceStore.unassigned
    late = iter(["late"])

    def meanwhile(store: PreferenceStore) -> Any:
        for name in late if store.assignment("rlhf-v1") is None and working() else ():
            deliver(program, name, rows(name))
        return unassigned(store)

    monkeypatch.setattr(PreferenceStore, "unassigned", meanwhile)
    run_what_can_be_done(program)
    assert store_of(program).assignment("rlhf-v1") is not None
    assert len(store_of(program).assignment("rlhf-v1") or []) == 5
    assert taken(program, "rlhf-v1") == ["d0", "d1", "d2", "d3", "late"]


def working() -> bool:
    """Whether an intake asks."""
    return any(frame.function == "_deliveries" for frame in inspect.stack(0))


def test_what_is_taken_back_just_before_an_intake_begins_is_in_its_fingerprint(
    program: Any, monkeypatch: pytest.MonkeyPatch, real_intake: None
) -> None:
    check_space = runner.check_space
    said = iter(["person 1"])

    def meanwhile(_program: Any, node: Any) -> None:
        for name in said if node.module == "intake" else ():
            block(program, name, reason="")
        check_space(_program, node)

    monkeypatch.setattr(runner, "check_space", meanwhile)
    run_what_can_be_done(program)
    intake = done_stages(program)["rlhf-v1"]["intake"]
    assert (intake / EXCLUDED).is_file()
    unblock(program, "person 1")
    assert "rlhf-v1" not in done_stages(program)
    run_what_can_be_done(program)
    assert not (done_stages(program)["rlhf-v1"]["intake"] / EXCLUDED).exists()


def test_what_is_given_back_while_an_intake_runs_is_not_made_again(
    program: Any, stages: Any, monkeypatch: pytest.MonkeyPatch, real_intake: None
) -> None:
    run_what_can_be_done(program)
    before = done_stages(program)
    block(program, "person 1", reason="")
    said = iter(["person 1"])

    def meanwhile(context: Any) -> None:
        for name in said:
            unblock(program, name)

    monkeypatch.setattr(
        "alignment.execution.runner.importlib", RealIntake(stages, before=meanwhile)
    )
    run_what_can_be_done(program)
    assert done_stages(program) == before
