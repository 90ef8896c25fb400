"""`make bench`: its table says what the rounds were."""

from __future__ import annotations

import pytest

from tests.benchmarks.__main__ import in_turns, main, row


def test_sides_take_turns_and_begin_in_turn() -> None:
    assert in_turns(["a", "b", "c"], 4) == [*"abc", *"bca", *"cab", *"abc"]


def test_a_row_by_hand() -> None:
    def lines(*rates: float) -> list[dict[str, object]]:
        return [
            {"pairs_per_s": rate, "of_limit": rate / 100, "passes": {"training": "fast"}}
            for rate in rates
        ]

    found = row(
        "25m", "reward", {"auto": lines(8, 9, 40), "off": lines(4, 6, 5), "usual": lines(4, 3, 5)}
    )
    # Ratios are of the same round: 8/4, 9/3, 40/5 and 4/4, 6/3, 5/5.
    assert [cell.strip() for cell in found.strip("| ").split("|")] == [
        "25m",
        "reward, pairs/s",
        "4.00 (3.00–5.00)",
        "5.00 (4.00–6.00), 1.00 (1.00–2.00)×",
        "9.00 (8.00–40.00), 3.00 (2.00–8.00)×",
        "9 (8–40) %",
        "training: fast",
    ]


def test_without_the_usual_way_ratios_are_to_the_plain_one() -> None:
    plain, own = ({"episodes_per_s": rate, "of_limit": 0.1, "passes": {}} for rate in (2.0, 3.0))
    found = row("260k", "ppo", {"auto": [own], "off": [plain]})
    assert "| 2.00 (2.00–2.00) | 3.00 (3.00–3.00), 1.50 (1.50–1.50)× |" in found


def test_an_unknown_size_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["7b"])
    assert "no work for 7b; there is for 260k, 25m, 135m" in capsys.readouterr().err
