"""The guard's share of the comparisons, and how its agreement is measured."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from reward_helpers import scored

from alignment.preferences.schema import Comparison
from alignment.rewards.guard_split import agreement, share_out
from alignment.rewards.mixture import Source


def source(question: str, batch: str = "b1", more: str | None = None) -> Source:
    conversation = [{"role": "user", "content": question}]
    if more is not None:
        conversation += [
            {"role": "assistant", "content": "so"},
            {"role": "user", "content": more},
        ]
    return Source(
        batch,
        Comparison(conversation=conversation, chosen="a", rejected="b", domain="helpfulness"),
    )


def test_two_shares_have_no_prompt_in_common() -> None:
    sources = [source(f"question {n}") for n in range(2000)]
    mine, its = (share_out(sources, 0.3, guard=guard) for guard in (False, True))
    assert len(mine) + len(its) == 2000
    assert len(its) == pytest.approx(600, abs=80)
    prompts = [{s.comparison.conversation[0]["content"] for s in part} for part in (mine, its)]
    assert not prompts[0] & prompts[1]


def test_two_spellings_of_an_accent_are_on_one_side() -> None:
    sources = [source(f"café {n}") for n in range(40)]
    again = [source(unicodedata.normalize("NFD", f"café {n}")) for n in range(40)]
    for guard in (False, True):
        sides = [
            [
                s.comparison.conversation[0]["content"].split()[1]
                for s in share_out(part, 0.5, guard=guard)
            ]
            for part in (sources, again)
        ]
        assert sides[0] == sides[1]


def test_a_prompt_stays_on_its_side_in_later_batches_and_turns() -> None:
    first = [source(f"question {n}") for n in range(200)]
    later = [source(f"question {n}", "b2", more="and then?") for n in range(200)]
    for guard in (False, True):
        sides = [
            [s.comparison.conversation[0]["content"] for s in share_out(part, 0.4, guard=guard)]
            for part in (first, later)
        ]
        assert sides[0] == sides[1]


def test_no_share_is_no_guard() -> None:
    sources = [source("one"), source("two")]
    assert share_out(sources, 0.0, guard=False) == sources
    assert share_out(sources, 0.0, guard=True) == []


def test_agreement_by_hand() -> None:
    main = scored(np.array([True, True, True, False]))
    guard = scored(np.array([True, True, False, False]))
    found = agreement(main, guard)
    assert found["same"]["accuracy"] == 0.75
    assert found["both_wrong"] == 0.25
    # 3/4 · 1/2 + 1/4 · 1/2
    assert found["chance"] == 0.5
    assert found["gap_correlation"] == pytest.approx(0.5)
