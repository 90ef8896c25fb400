"""The stop set: reserved by opening, in no other set."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from alignment.errors import DataError
from alignment.preferences import stop_set
from alignment.preferences.prompts import Prompt
from alignment.preferences.stop_set import MOST, read_texts, reserve


def pool(count: int, turns: int = 1) -> list[Prompt]:
    """`turns` prompts to each of `count` openings."""
    return [
        Prompt(
            messages=[
                {"role": "user", "content": f"question {number}"},
                *[
                    message
                    for turn in range(later)
                    for message in (
                        {"role": "assistant", "content": f"answer {turn}"},
                        {"role": "user", "content": f"and {turn}?"},
                    )
                ],
            ],
            domain="safety" if number % 3 == 0 else "helpfulness",
        )
        for number in range(count)
        for later in range(turns)
    ]


@pytest.mark.parametrize(
    ("content", "match", "where"),
    [
        ('{"text": "a"}\n{"txt": "b"}\n', "no text", "row 2"),
        ('{"text": "a"}\n{"text"', "not a JSON object", ":2"),
        ('{"text": " "}\n', "no text in the file", "texts.jsonl"),
        (None, "cannot be read", "texts.jsonl"),
    ],
)
def test_a_bad_file_of_texts_is_named(
    tmp_path: Path, content: str | None, match: str, where: str
) -> None:
    path = tmp_path / "texts.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=match) as caught:
        read_texts(path)
    assert where in str(caught.value.where)


def test_texts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "a"}\n\n{"text": "b", "more": 1}\n')
    assert [row["text"] for row in read_texts(path)] == ["a", "b"]


def test_a_tenth_is_reserved_and_the_order_of_the_pool_does_not_matter() -> None:
    prompts = pool(300)
    rest, stop = reserve(prompts)
    assert len(stop) == 30
    assert {p.id for p in rest} | {p.id for p in stop} == {p.id for p in prompts}
    assert not {p.id for p in rest} & {p.id for p in stop}
    assert 3 <= sum(p.tag_safety for p in stop) <= 18
    mixed = random.Random(3).sample(prompts, 300)
    assert {p.id for p in reserve(mixed)[1]} == {p.id for p in stop}
    assert len(reserve(pool(9000))[1]) == MOST
    assert reserve(pool(9)) == (pool(9), [])


def test_turns_of_one_dialogue_stay_on_one_side() -> None:
    rest, stop = reserve(pool(60, turns=4))
    openings = [{p.messages[0]["content"] for p in side} for side in (rest, stop)]
    assert not openings[0] & openings[1]
    assert len(stop) == 24
    assert len(stop) == 4 * len(openings[1])


def test_a_great_dialogue_is_not_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one dialogue the whole pool would be, and nothing be left to learn on."""
    monkeypatch.setattr(stop_set, "MOST", 60)
    assert [len(side) for side in reserve(pool(1, turns=100))] == [100, 0]
    rest, stop = reserve([*pool(1, turns=300), *pool(60, turns=5)[5:]])
    assert len(stop) == 55
    assert len(rest) == 540
    assert len(reserve(pool(30, turns=50))[1]) == 50  # a second one would make it more than MOST
