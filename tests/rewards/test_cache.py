"""Nothing is scored twice, and what was kept is what would have been computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from reward_helpers import random_elements, tiny, word_tokenizer

import alignment.rewards.model as model_module
from alignment.errors import DataError
from alignment.models.chat_renderer import Tokens
from alignment.rewards.cache import ScoreCache, token_digest
from alignment.rewards.card import RewardCard
from alignment.rewards.model import RewardModel
from alignment.utils.progress import SilentProgress

MODEL = "ab" * 32


def answers(prompts: int, seed: int = 0) -> list[Tokens]:
    return [
        Tokens(list(ids[:5]), list(ids[5:]))
        for element in random_elements(prompts, seed, 3)
        for ids in element.sequences
    ]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    RewardModel(tiny(), word_tokenizer(), RewardCard("safety", bias=0.5)).save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many answers each call had to compute."""
    counts: list[int] = []
    compute = RewardModel._compute

    def counting(self: RewardModel, keys: list[model_module.Key], tokens: int) -> np.ndarray:
        counts.append(len(keys))
        return compute(self, keys, tokens)

    monkeypatch.setattr(RewardModel, "_compute", counting)
    return counts


def test_get_and_put(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path)
    keys = [token_digest([1, 2, n]) for n in range(1200)]
    assert np.isnan(cache.get(MODEL, keys)).all()
    cache.put(MODEL, keys[:700], np.arange(700.0))
    found = ScoreCache(tmp_path).get(MODEL, keys)
    assert np.array_equal(found[:700], np.arange(700.0))
    assert np.isnan(found[700:]).all()
    assert np.isnan(cache.get("cd" * 32, keys[:5])).all()
    cache.put(MODEL, keys[:1], np.array([9.0]))
    assert cache.get(MODEL, keys[:1])[0] == 0.0


def test_digest_tells_token_lists_apart() -> None:
    lists = [[1, 2], [2, 1], [1], [1, 2, 0], [258]]
    assert len({token_digest(ids) for ids in lists}) == len(lists)


def test_nothing_is_scored_twice(
    saved: Path, tmp_path: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    items = answers(6)
    first = RewardModel.load(saved, cache=ScoreCache(tmp_path))
    scores = first.score(items[:12])
    assert sum(computed) == 12
    # Another process, a longer list: only what is new is computed.
    again = RewardModel.load(saved, cache=ScoreCache(tmp_path))
    more = again.score(items)
    assert sum(computed) == len(items)
    assert np.array_equal(more[:12], scores)
    assert again.cache is not None
    assert (again.cache.reused, again.cache.computed) == (12, 6)
    said: list[str] = []
    monkeypatch.setattr(SilentProgress, "say", lambda _, text: said.append(text))
    again.cache.report(SilentProgress())
    assert said == ["12 of 18 scores came from the cache"]
    plain = RewardModel.load(saved).score(items)
    assert more == pytest.approx(plain, abs=1e-5)


def test_scores_are_of_the_weights_and_not_of_the_card(
    saved: Path, tmp_path: Path, computed: list[int]
) -> None:
    items = answers(4)
    first = RewardModel.load(saved, cache=ScoreCache(tmp_path))
    scores = first.score(items)
    first.calibrate(items[:5], items)
    first.save_card()
    spent = sum(computed)
    shifted = RewardModel.load(saved, cache=ScoreCache(tmp_path))
    assert shifted.score(items) == pytest.approx(scores - 0.5 + shifted.card.bias)
    assert sum(computed) == spent
    RewardModel(tiny(seed=1), word_tokenizer(), RewardCard("safety")).save(tmp_path / "other")
    other = RewardModel.load(tmp_path / "other", cache=ScoreCache(tmp_path))
    assert not np.allclose(other.score(items), scores)
    assert other.digest() != first.digest()


def test_a_killed_scoring_goes_on_to_the_same_bits(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_module, "CACHED_AT_ONCE", 7)
    items = answers(12)
    whole = RewardModel.load(saved, cache=ScoreCache(tmp_path / "whole")).score(items)

    class Killed(Exception):
        pass

    killed = RewardModel.load(saved, cache=ScoreCache(tmp_path / "killed"))
    compute, left = killed._compute, iter([True, True, False])

    def dying(*arguments: object) -> np.ndarray:
        if not next(left):
            raise Killed
        return compute(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(killed, "_compute", dying)
    with pytest.raises(Killed):
        killed.score(items)
    resumed = RewardModel.load(saved, cache=ScoreCache(tmp_path / "killed"))
    assert np.array_equal(resumed.score(items), whole)
    assert resumed.cache is not None
    assert resumed.cache.reused > 0


def test_a_broken_file_is_said(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path)
    cache.path.parent.mkdir(parents=True)
    cache.path.write_text("no database at all, whatever the name may say" * 50)
    with pytest.raises(DataError, match="cannot be used"):
        cache.get(MODEL, [token_digest([1])])
