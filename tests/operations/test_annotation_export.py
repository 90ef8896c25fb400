"""The pairs of the newest version reach the outbox, whoever is there to put them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from deliveries_of_people import inbox_program, run_what_can_be_done
from rich.console import Console

from alignment.cli.launch import export_names, hand_out
from alignment.config.load import check_program
from alignment.operations import outbox
from alignment.operations.annotation_export import CollectedPairs
from alignment.preferences.exports import list_exports
from alignment.preferences.store import PreferenceStore
from alignment.utils.json_lines import json_line


@pytest.mark.parametrize(
    ("exported", "judged", "handed_out"), [(0, 0, ["rlhf-v1"]), (2, 0, []), (0, 2, [])]
)
def test_newest_pairs_once(
    exported: int, judged: int, handed_out: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = check_program({"name": "x", "workspace": "w", "intake": {"source": "inbox"}})
    pairs: list[dict[str, Any]] = [{"id": "a"}, {"id": "b"}]
    found = [
        CollectedPairs("sft", pairs, 2, 2, []),
        CollectedPairs("rlhf-v1", pairs, exported, judged, pairs),
    ]
    made: list[str] = []
    monkeypatch.setattr(outbox, "collected_pairs", lambda _program: found)
    monkeypatch.setattr(
        outbox, "export_pairs", lambda _program, version, **_settings: made.append(version)
    )
    outbox.fill_outbox(program, say=print)
    assert made == handed_out


def test_a_program_that_makes_its_own_preferences_asks_nobody() -> None:
    assert outbox.fill_outbox(check_program({"name": "x", "workspace": "w"}), print) is None


def test_the_first_pairs_are_drawn_at_random_where_uncertain_ones_are_wanted(
    tmp_path: Path, stages: Any
) -> None:
    program = inbox_program(tmp_path / "workspace")
    select = program.orchestration.outbox.model_copy(update={"select": "uncertain", "count": 2})
    orchestration = program.orchestration.model_copy(update={"outbox": select})
    program = program.model_copy(update={"orchestration": orchestration})

    def collect(context: Any) -> None:
        if context.stage == "collect":
            (context.out / "pairs.jsonl").write_text("".join(json_line(pair(n)) for n in range(5)))

    stages.before = collect
    run_what_can_be_done(program)
    said: list[str] = []
    export = outbox.fill_outbox(program, said.append)
    assert export is not None
    assert (export.version, export.tasks, export.selection) == ("sft", 2, "random")
    assert export.file.is_file()
    assert "drawn at random: there are no reward models yet" in said[0]
    (listed,) = list_exports(PreferenceStore(program.workspace / "preferences"))
    assert listed.selection == "random"
    assert outbox.fill_outbox(program, said.append) is None, "once"
    # `align run` names the file also where a flow, and not the command, has written it.
    console = Console(width=1000, record=True, file=io.StringIO())
    hand_out(program, console, before=())
    assert str(export.file) in console.export_text()
    hand_out(program, console, before=export_names(program))
    assert console.export_text() == ""


def pair(number: int) -> dict[str, Any]:
    """A line of a `collect` stage's pairs.jsonl."""
    answers = [{"text": f"{side} {number}", "version": "sft"} for side in ("left", "right")]
    return {
        "id": f"pair-{number}",
        "conversation": [{"role": "user", "content": f"question {number}"}],
        "responses": answers,
        "domain": "helpfulness",
        "category": None,
    }
