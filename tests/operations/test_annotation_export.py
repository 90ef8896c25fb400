"""The pairs of the newest version reach the outbox, whoever is there to put them."""

from __future__ import annotations

from typing import Any

import pytest

from alignment.config.load import check_program
from alignment.operations.annotation_export import CollectedPairs
from flows.definitions import iteration


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
    monkeypatch.setattr(iteration, "collected_pairs", lambda _program: found)
    monkeypatch.setattr(
        iteration, "export_pairs", lambda _program, version, **_settings: made.append(version)
    )
    iteration.fill_outbox(program)
    assert made == handed_out


def test_a_program_that_makes_its_own_preferences_asks_nobody() -> None:
    assert iteration.fill_outbox(check_program({"name": "x", "workspace": "w"})) is None
