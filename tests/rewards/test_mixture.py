"""Which comparisons each reward model learns from, over domains and origins."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from alignment.config.load import load_program
from alignment.config.rewards import MixtureConfig
from alignment.preferences.schema import Comparison
from alignment.rewards.mixture import Source, mix


def sources(**counts: int) -> list[Source]:
    """`own_helpfulness=3, open_safety=2, …`."""
    found = []
    for name, count in counts.items():
        origin, domain = name.split("_")
        for number in range(count):
            conversation = [{"role": "user", "content": f"{name} {number}"}]
            row = Comparison(conversation=conversation, chosen="a", rejected="b", domain=domain)
            found.append(Source(origin, row, origin))
    return found


def drawn(domain: str, rows: list[Source], mixture: MixtureConfig) -> dict[str, int]:
    found = mix(domain, rows, mixture, 3)
    kept = set(map(id, found))
    assert [id(row) for row in rows if id(row) in kept] == list(map(id, found)), "in their order"
    return dict(Counter(f"{row.origin}_{row.comparison.domain}" for row in found))


def test_the_papers_recipe_stands_in_its_config() -> None:
    """§3.2.2: helpfulness with as many of the rest (own safety, open data); safety 90 : 10."""
    overrides = ["base.path=model", "data.path=data"]
    mixture = load_program(Path("configs/llama2.yaml"), overrides).rewards.mixture
    rows = sources(own_helpfulness=900, own_safety=300, open_helpfulness=900, open_safety=600)
    helpful = drawn("helpfulness", rows, mixture)
    assert helpful.pop("own_helpfulness") == 900
    assert sum(helpful.values()) == 900
    evenly = {"own_safety": 150, "open_helpfulness": 450, "open_safety": 300}
    assert helpful == pytest.approx(evenly, abs=50)
    safe = drawn("safety", rows, mixture)
    assert (safe["own_safety"], safe["open_safety"]) == (300, 600)
    assert safe["own_helpfulness"] + safe["open_helpfulness"] == 100


@pytest.mark.parametrize(("open", "rest"), [(0, 20), (50, 65), (100, 110), (200, 200), (900, 200)])
def test_without_open_data_safety_does_not_take_over(open: int, rest: int) -> None:
    """W18: up to half of the helpfulness model's data were safety comparisons."""
    rows = sources(own_helpfulness=200, own_safety=300, open_helpfulness=open)
    found = drawn("helpfulness", rows, MixtureConfig())
    assert found.pop("own_helpfulness") == 200
    assert sum(found.values()) == rest  # 200 × (0.1 + 0.9 × open/200), at most 200
    # A share that is set is kept, whatever the origins.
    found = drawn("helpfulness", rows, MixtureConfig(helpfulness_rest=0.5))
    assert sum(found.values()) == 300


def test_open_data_are_the_core_only_while_there_is_nothing_else() -> None:
    rows = sources(open_helpfulness=40, open_safety=40)
    evenly = {"open_helpfulness": 40, "open_safety": 40}
    assert drawn("helpfulness", rows, MixtureConfig()) == evenly
    rows += sources(own_helpfulness=1)
    assert sum(drawn("helpfulness", rows, MixtureConfig()).values()) == 2
