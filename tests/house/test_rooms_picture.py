"""The picture of the rooms in docs/ is the one that the code draws."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "tools"))
    sys.modules.pop("rooms", None)
    import rooms

    return rooms


def test_the_picture_shows_todays_imports(rooms: Any) -> None:
    drawn, shown = rooms.draw(), rooms.PICTURE.read_text()
    assert drawn == shown, "the imports changed: run `python -m tests.tools.rooms`"


def test_every_room_says_what_it_is_for(rooms: Any) -> None:
    silent = [
        room
        for row in rooms.layers()
        for room in row
        if not rooms.question(room).endswith((".", "?"))
    ]
    assert silent == []


def test_only_arrows_without_another_way_are_drawn(rooms: Any) -> None:
    needs = {"a": {"b", "c"}, "b": {"c"}, "c": set()}
    assert rooms.reduced(needs) == [("a", "b"), ("b", "c")]
