"""Nothing is scored twice, and what was kept is, to the bit, what would have been computed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from reward_helpers import random_elements, tiny, word_tokenizer

import alignment.rewards.model as model_module
from alignment.models.chat_renderer import Tokens
from alignment.rewards.cache import Answer, ScoreCache, piece_digest
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

    def counting(self: RewardModel, keys: list[Answer], tokens: int) -> np.ndarray:
        counts.append(len(keys))
        return compute(self, keys, tokens)

    monkeypatch.setattr(RewardModel, "_compute", counting)
    return counts


def test_get_and_put(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path)
    scores = np.arange(700.0)
    assert cache.get(MODEL, "p", 700) is None
    cache.put(MODEL, "p", scores)
    found = ScoreCache(tmp_path).get(MODEL, "p", 700)
    assert found is not None
    assert np.array_equal(found, scores)
    assert cache.get("cd" * 32, "p", 700) is None
    cache.put(MODEL, "q", np.array([1.0, np.nan]))
    assert cache.get(MODEL, "q", 2) is None


def test_digest_tells_pieces_apart() -> None:
    lists = [[1, 2], [2, 1], [1], [1, 2, 0], [258]]
    pieces: list[list[Answer]] = [[((7,), tuple(ids))] for ids in lists]
    pieces += [[((7, 1), (2,))], [((), (7, 1, 2))], pieces[0] + pieces[1], pieces[1] + pieces[0]]
    digests = {piece_digest(piece, (100, "rows", 1)) for piece in pieces}
    ways = [(101, "rows", 1), (100, "plain", 1), (100, "rows", 2), (100, "rows", None)]
    digests |= {piece_digest(pieces[0], way) for way in ways}
    assert len(digests) == len(pieces) + len(ways)


def test_nothing_is_scored_twice(
    saved: Path, tmp_path: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_module, "PIECE", 12)
    items = answers(6)
    first = RewardModel.load(saved, cache=ScoreCache(tmp_path))
    scores = first.score(items)
    assert sum(computed) == len(items)
    # Another process: the same request is read, in any order.
    again = RewardModel.load(saved, cache=ScoreCache(tmp_path))
    assert np.array_equal(again.score(items[::-1])[::-1], scores)
    assert sum(computed) == len(items)
    assert again.cache is not None
    assert (again.cache.reused, again.cache.computed) == (18, 0)
    said: list[str] = []
    monkeypatch.setattr(SilentProgress, "say", lambda _, text: said.append(text))
    again.cache.report(SilentProgress())
    assert said == ["18 of 18 scores came from the cache"]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_no_score_depends_on_what_the_cache_holds(kind: str, tmp_path: Path) -> None:
    """Half of the answers were scored before, beside others, with another number of threads: every
    bit is what it is without a cache. (Padding, and so rounding, depends on the company.)"""
    RewardModel(tiny(kind), word_tokenizer(), RewardCard("safety")).save(tmp_path / "model")
    items = answers(40)
    bare = RewardModel.load(tmp_path / "model").score(items)
    primed = RewardModel.load(tmp_path / "model", cache=ScoreCache(tmp_path))
    threads = torch.get_num_threads()
    for part, count in ((items[::2], threads), (items[:30], threads), (items, threads + 1)):
        torch.set_num_threads(count)
        primed.score(part)
    torch.set_num_threads(threads)
    for tokens in (200, 16384):
        primed.score(items[1::2], tokens)
    assert np.array_equal(primed.score(items), bare)


def test_no_score_depends_on_what_was_scored_before(tmp_path: Path) -> None:
    """A text beyond a model's attention window has its layout; shorter ones keep theirs."""
    card = RewardCard("safety", max_length=40)  # the model sees 64 tokens back
    RewardModel(tiny("mistral"), word_tokenizer(), card).save(tmp_path / "m")
    items = answers(12)
    fresh = RewardModel.load(tmp_path / "m")
    expected = fresh.score(items)
    assert set(fresh._styles.values()) != {"plain"}
    used = RewardModel.load(tmp_path / "m")
    used.score([Tokens([5] * 80, [4, 1])])
    assert np.array_equal(used.score(items), expected)
    assert sorted(used._styles) == [40, 82]
    assert used._styles[82] == "plain"


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
    monkeypatch.setattr(model_module, "PIECE", 7)
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


def test_a_damaged_file_is_said_and_computed_again(
    saved: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items = answers(3)
    scores = RewardModel.load(saved, cache=ScoreCache(tmp_path)).score(items)
    (path,) = (tmp_path / "cache" / "scores").glob("*/*")
    whole = path.read_bytes()
    for damage in (b"", whole[:10], whole[:-8], whole + bytes(8), b"no scores", bytes(len(whole))):
        path.write_bytes(damage)
        assert np.array_equal(
            RewardModel.load(saved, cache=ScoreCache(tmp_path)).score(items), scores
        )
        assert f"{path} is damaged" in caplog.text
        assert path.read_bytes() == whole
        caplog.clear()


def test_no_byte_can_change_unseen(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path)
    cache.put(MODEL, "p", np.array([0.5, -2.0]))
    path = cache.directory / MODEL[:16] / "p"
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert cache.get(MODEL, "p", 2) is None
    path.write_bytes(whole)
    assert cache.get(MODEL, "p", 3) is None
    assert cache.get(MODEL, "p", 2) == pytest.approx([0.5, -2.0], abs=0)


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path)
    cache.put(MODEL, "p", np.zeros(2))
    left, another = (cache.directory / MODEL[:16] / name for name in (".p.dead", ".p.alive"))
    for path in (left, another):
        path.write_bytes(b"half")
    os.utime(left, (0, 0))
    (cache.directory / MODEL[:16] / ".p.renamed").symlink_to("gone between two looks at it")
    cache.put(MODEL, "q", np.zeros(2))
    assert left.exists()  # looked for once
    ScoreCache(tmp_path).put(MODEL, "q", np.zeros(2))
    assert not left.exists()
    assert another.exists()


def test_the_cache_of_0_1_makes_room(saved: Path, tmp_path: Path) -> None:
    old = tmp_path / "cache" / "scores.sqlite"
    old.parent.mkdir()
    old.write_text("scores one by one")
    RewardModel.load(saved, cache=ScoreCache(tmp_path)).score(answers(2))
    assert not old.exists()
