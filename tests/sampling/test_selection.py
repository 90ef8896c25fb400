"""Filters, rules, the bag, the prompt mixture."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from alignment.config.sampling import CollectConfig, SampleConfig, SelectConfig
from alignment.errors import DataError, StageError
from alignment.inference.types import Sample
from alignment.preferences.prompts import Prompt
from alignment.sampling.bag import (
    admitted,
    best_entries,
    mean_rewards,
    read_bag,
    select_with,
    shares,
    write_bag,
)
from alignment.sampling.pairs import make_pair, plan_pairs
from alignment.sampling.prompt_sampling import draw_prompts
from alignment.sampling.selection import (
    Candidate,
    accept,
    effective_size,
    eligible,
    is_unsafe,
    random_control,
    reaching,
    select,
)
from alignment.sampling.temperature import best_temperature
from alignment.stages.select import _refuse_lost_domain, _write_scores


def _candidate(prompt: str, text: str, reward: float, **more: Any) -> Candidate:
    values: dict[str, Any] = {
        "finished": True,
        "helpfulness": reward,
        "safety": 0.0,
        "safe_probability": 0.9,
        "source_version": "sft",
        "tokens": len(text),
        "safety_prompt": False,
    }
    return Candidate(prompt_id=prompt, text=text, reward=reward, **{**values, **more})


def test_of_one_text_the_answer_that_ended_counts_then_the_better_one() -> None:
    answers = [
        _candidate("p", "a", 9.0, finished=False),
        _candidate("p", "a", 1.0),
        _candidate("p", "a", 2.0),
    ]
    config = SelectConfig(finished_only=False)
    for order in itertools.permutations(answers):
        ranked, counts = eligible(order, config)
        assert [(c.finished, c.reward) for c in ranked["p"]] == [(True, 2.0)]
        assert counts["duplicates"] == 2


def test_top_one_never_takes_what_a_filter_stops() -> None:
    candidates = [
        _candidate("p", "unsafe", 9.0, safe_probability=0.1, safety_prompt=True),
        _candidate("p", "cut", 8.0, finished=False, safety_prompt=True),
        _candidate("p", " ", 7.0, safety_prompt=True),
        _candidate("p", "good", 1.0, safety_prompt=True),
        _candidate("p", "good", 1.0, safety_prompt=True),
        _candidate("q", "helpful though unsafe", 5.0, safe_probability=0.1),
        _candidate("r", "unsafe", 3.0, safe_probability=0.0, safety_prompt=True),
    ]
    found = select(candidates, SelectConfig(), seed=1)
    assert [one.text for one in found.chosen] == ["good", "helpful though unsafe"]
    assert found.counts == {
        "candidates": 7,
        "unfinished": 1,
        "empty": 1,
        "unsafe": 2,
        "duplicates": 1,
        "prompts": 3,
        "prompts_without": 1,
        "prompts_without/helpfulness": 0,
        "prompts_without/safety": 1,
        "chosen": 2,
    }
    everywhere = select(candidates, SelectConfig(safety_scope="all"), seed=1)
    assert [one.text for one in everywhere.chosen] == ["good"]
    free = select(candidates, SelectConfig(safety_threshold=None, finished_only=False), seed=1)
    assert [one.text for one in free.chosen] == ["unsafe", "helpful though unsafe", "unsafe"]


def test_a_cut_answer_is_worth_no_more_than_the_worst_that_ended() -> None:
    """Reward models like answers without an end: never ending must not pay."""
    candidates = [
        _candidate("p", "ended well", 2.0),
        _candidate("p", "ended badly", -1.0),
        _candidate("p", "cut, and liked", 9.0, finished=False),
        _candidate("p", "cut, and bad", -3.0, finished=False),
        _candidate("q", "cut", 4.0, finished=False),
        _candidate("q", "cut too", 5.0, finished=False),
    ]
    groups = select(candidates, SelectConfig(finished_only=False), seed=1).eligible
    assert [(one.text, one.reward) for one in groups["p"]] == [
        ("ended well", 2.0),
        ("ended badly", -1.0),
        ("cut, and liked", -1.0),
        ("cut, and bad", -3.0),
    ]
    # Where nothing ended, there is nothing to outbid.
    assert [(one.text, one.reward) for one in groups["q"]] == [("cut too", 5.0), ("cut", 4.0)]


def test_what_falls_to_each_filter_is_counted() -> None:
    fallen = [{"finished": False}, {"text": " "}, {"safe_probability": 0.1}, {}]
    candidates = [
        _candidate("p", **{"text": f"t{number}", "reward": 0.0, "safety_prompt": True, **more})
        for number in range(3)
        for more in fallen
    ]
    candidates += candidates[3::4][:2]
    _, counts = eligible(candidates, SelectConfig())
    names = ("candidates", "unfinished", "empty", "unsafe", "duplicates")
    assert [counts[name] for name in names] == [14, 3, 3, 3, 2]
    config = SelectConfig(safety_threshold=0.15)
    at = _candidate("p", "at the threshold", 0.0, safe_probability=0.15, safety_prompt=True)
    assert not is_unsafe(at, config)


def test_the_choice_does_not_depend_on_the_order_of_arrival() -> None:
    candidates = [_candidate("p", text, 1.0) for text in ("bb", "a", "c")]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        found = select([candidates[i] for i in order], SelectConfig(), seed=1)
        assert found.chosen[0].text == "a"
    # The text that ended is better than the same one cut; of equals the first is kept.
    same = [_candidate("p", "t", reward, finished=reward > 0) for reward in (-1.0, 3.0)]
    same += [_candidate("p", "u", 2.0), _candidate("p", "t", 3.0, source_version="rlhf-v1")]
    for three in ([0, 1, 2, 3], [1, 0, 2, 3], [2, 1, 3, 0]):
        found = select([same[i] for i in three], SelectConfig(finished_only=False), seed=1)
        assert found.chosen == [same[1]]
        assert found.counts["duplicates"] == 2


def test_threshold_keeps_what_reaches_the_quantile() -> None:
    candidates = [_candidate("p", f"p{i}", float(i)) for i in range(8)]
    candidates += [_candidate("q", f"q{i}", float(-i)) for i in range(8)]
    config = SelectConfig(rule="threshold", quantile=0.75, per_prompt=3)
    found = select(candidates, config, seed=1)
    assert found.bars == {
        "helpfulness": pytest.approx(np.quantile([c.reward for c in candidates], 0.75))
    }
    assert [one.text for one in found.chosen] == ["p7", "p6", "p5"]
    assert math.isnan(found.effective_size)  # a figure of `accept`
    at_the_bar = select(candidates[:5], SelectConfig(rule="threshold", quantile=0.5), seed=1)
    assert at_the_bar.bars == {"helpfulness": 2.0}
    assert min(one.reward for one in at_the_bar.eligible["p"]) == 0.0
    assert [one.text for one in reaching(at_the_bar.eligible["p"], 2.0)] == ["p4", "p3", "p2"]
    alone = select(candidates[:1], config, seed=1)  # the only answer to its prompt
    assert [one.text for one in alone.chosen] == ["p0"]


@pytest.mark.parametrize("finished_only", [True, False])
def test_cut_answers_do_not_raise_the_bar(finished_only: bool) -> None:
    """Liked without an end, two of eight would leave no answer that reaches it."""
    candidates = [_candidate("p", f"ended {i}", float(i)) for i in range(6)]
    candidates += [_candidate("p", f"cut {i}", 99.0, finished=False) for i in range(2)]
    config = SelectConfig(rule="threshold", quantile=0.75, finished_only=finished_only)
    found = select(candidates, config, seed=1)
    assert found.bars == {"helpfulness": 3.25}  # of 0, 0, 0, 1, 2, 3, 4, 5
    assert [one.text for one in found.chosen] == ["ended 5", "ended 4"]


def test_threshold_has_a_bar_for_each_domain() -> None:
    """With one bar over both, every answer of the domain with the lower rewards would fall."""
    candidates = [_candidate("p", f"p{i}", 10.0 + i) for i in range(8)]
    candidates += [_candidate("q", f"q{i}", float(i), safety_prompt=True) for i in range(8)]
    config = SelectConfig(rule="threshold", quantile=0.75, per_prompt=8)
    found = select(candidates, config, seed=1)
    assert found.bars == {"helpfulness": 15.25, "safety": 5.25}
    assert [one.text for one in found.chosen] == ["p7", "p6", "q7", "q6"]
    assert found.without == {"helpfulness": 0, "safety": 0}


def published_rso(rewards: list[float], count: int, beta: float, rng: Any) -> list[int]:
    """`conduct_rejection_sampling` of Liu et al. 2023, Algorithm 1, on places of candidates."""
    candidates = dict(enumerate(rewards))
    accepted: list[int] = []
    while len(accepted) < count and candidates:
        largest = max(candidates.values())
        removed = []
        for place, reward in candidates.items():
            if rng.uniform() >= np.exp((reward - largest) / beta):
                continue
            accepted.append(place)
            removed.append(place)
            if len(accepted) == count:
                break
        for place in removed:
            candidates.pop(place)
    return accepted


def test_acceptance_includes_each_rank_as_often_as_the_published_routine() -> None:
    """Also with one answer a prompt, where passes from best to worst would be top-1 for any β."""
    rng = np.random.default_rng(5)
    for count, beta in ((4, 0.5), (1, 0.5), (1, 100.0)):
        ours, theirs = np.zeros(16), np.zeros(16)
        for trial in range(1500):
            rewards = sorted(rng.normal(size=16).tolist(), reverse=True)
            group = [_candidate("p", str(i), reward) for i, reward in enumerate(rewards)]
            ours[[int(c.text) for c in accept(group, beta, count, trial)]] += 1 / 1500
            order = rng.permutation(16)  # candidates come as they were drawn
            taken = published_rso([rewards[i] for i in order], count, beta, rng)
            theirs[order[taken]] += 1 / 1500
        # Two shares of 1,500 trials each: a standard error of at most 0.018.
        assert np.abs(ours - theirs).max() < 0.07, (count, beta, ours, theirs)
        assert ours.sum() == pytest.approx(count)
    assert ours.max() < 0.12  # β = 100 is a random pick of 16


def test_acceptance_has_the_probabilities_of_rejection_sampling() -> None:
    """The first accepted of three, by enumeration of the orders and the passes."""
    rewards, beta = (1.0, 0.5, 0.0), 0.5
    chances = [math.exp((reward - 1.0) / beta) for reward in rewards]
    expected = [0.0, 0.0, 0.0]
    for order in permutations(range(3)):
        before = 1.0  # a pass never ends without one: the best is accepted where it stands
        for place in order:
            expected[place] += before * chances[place] / 6
            before *= 1 - chances[place]
    group = [_candidate("p", str(i), reward) for i, reward in enumerate(rewards)]
    first = Counter(accept(group, beta, 1, seed)[0].text for seed in range(4000))
    assert [first[name] / 4000 for name in "012"] == pytest.approx(expected, abs=0.03)


def test_acceptance_draws_by_seed_and_prompt() -> None:
    candidates = [_candidate(p, f"{p}{i}", 0.1 * i) for p in "pqrs" for i in range(8)]
    config = SelectConfig(rule="accept", beta=0.5, per_prompt=2)
    found = select(candidates, config, seed=1)
    assert found.chosen == select(candidates, config, seed=1).chosen
    assert accept(candidates[:8], 0.5, 2, 7) == accept(candidates[:8], 0.5, 2, 7)
    assert found.chosen != select(candidates, config, seed=2).chosen
    picks = [[c.text[1:] for c in found.chosen if c.prompt_id == p] for p in "pqrs"]
    assert any(pick != picks[0] for pick in picks)
    assert found.effective_size == pytest.approx(effective_size(candidates[:8], 0.5))
    assert not found.bars  # a figure of `threshold`


def test_acceptance_ends_and_goes_to_top_k() -> None:
    group = [_candidate("p", str(i), float(-i)) for i in range(6)]
    assert [c.text for c in accept(group, 1e-6, 3, 5)] == ["0", "1", "2"]
    assert len(accept(group, 0.5, 99, 5)) == 6
    assert len(accept(group, 1e9, 3, 5)) == 3  # each is accepted, and no more than asked for
    assert effective_size(group, 1e-6) == pytest.approx(1.0)
    assert effective_size(group, 1e9) == pytest.approx(6.0)
    # Weights ½ and 1: 1.5²/1.25; the scale of the rewards must not matter.
    two = [_candidate("p", "a", 1000.0), _candidate("p", "b", 1000.0 + math.log(2))]
    assert effective_size(two, 1.0) == pytest.approx(1.8)


def test_control_has_the_same_size_per_prompt() -> None:
    candidates = [_candidate(p, f"{p}{i}", float(i)) for p in "pq" for i in range(8)]
    found = select(candidates, SelectConfig(rule="accept", per_prompt=2), seed=3)
    control = random_control(found, seed=3)
    assert Counter(c.prompt_id for c in control) == Counter(c.prompt_id for c in found.chosen)
    assert len({(c.prompt_id, c.text) for c in control}) == len(control)
    assert control == random_control(found, seed=3)
    assert control != random_control(found, seed=4)
    # Each prompt has draws of its own.
    picked = {p: [c.text[1:] for c in control if c.prompt_id == p] for p in "pq"}
    assert picked["p"] != picked["q"]


def test_the_bag_keeps_only_what_a_version_wrote_and_no_scores(tmp_path: Path) -> None:
    groups, _ = eligible(
        [
            _candidate("p", "old", 5.0, source_version="sft"),
            *(_candidate("p", f"n{i}", float(i), source_version="rlhf-v1") for i in range(4)),
        ],
        SelectConfig(),
    )
    kept = best_entries(groups, 2, "rlhf-v1")
    assert [(one.text, one.source_version) for one in kept] == [
        ("n3", "rlhf-v1"),
        ("n2", "rlhf-v1"),
    ]
    write_bag(tmp_path / "kept.jsonl", kept)
    assert read_bag({"rlhf-v2": tmp_path}) == kept
    with pytest.raises(DataError, match="rlhf-v9"):
        read_bag({"rlhf-v9": tmp_path / "nothing"})


def test_the_bag_admits_top_samples_of_each_domain_and_not_too_many() -> None:
    own = [_candidate(str(i), "x", float(i), source_version="rlhf-v1") for i in range(8)]
    own += [
        _candidate(f"s{i}", "x", i - 20.0, source_version="rlhf-v1", safety_prompt=True)
        for i in range(4)
    ]
    old = [_candidate(str(i), "y", float(i)) for i in range(8)]
    old += [_candidate("7", "z", 6.5)]
    old += [_candidate(f"s{i}", "y", i - 20.0, safety_prompt=True) for i in range(4)]
    config = SelectConfig(bag_quantile=0.5, bag_share=0.5)
    found = admitted(old, own, config)
    # Bars 3.5 and -18.5; second answers to a prompt come after the first ones.
    assert [(one.prompt_id, one.reward) for one in found] == [
        *[("7", 7.0), ("6", 6.0), ("5", 5.0), ("4", 4.0), ("7", 6.5)],
        *[("s3", -17.0), ("s2", -18.0)],
    ]
    # A third of all from earlier versions: half as many as the 8 and the 4 of its own.
    fewer = admitted(old, own, SelectConfig(bag_quantile=0.0, bag_share=1 / 3))
    assert [one.prompt_id for one in fewer] == ["7", "6", "5", "4", "s3", "s2"]
    assert admitted(old, own, SelectConfig(bag_share=0.0)) == []
    assert admitted(old, [], config) == []
    assert shares([*own, old[0]]) == {
        "rlhf-v1": pytest.approx(12 / 13),
        "sft": pytest.approx(1 / 13),
    }
    assert mean_rewards([*own[:2], old[7], old[8]]) == {"rlhf-v1": 0.5, "sft": 6.75}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("rule", ["top1", "threshold", "accept"])
def test_no_more_than_the_share_comes_from_earlier_versions(rule: Any, share: float) -> None:
    """Better answers to the same prompts, and others that raise the bar, would displace the own
    ones: all of them with `top1`, four of five with `threshold`."""
    generator = np.random.default_rng(4)
    own, old = (
        [
            _candidate(
                f"{name}{i}",
                f"{version}{i}{k}",
                mean + float(generator.normal()),
                source_version=version,
                safety_prompt=i % 3 == 0,
            )
            for name in prompts
            for i in range(20)
            for k in range(4)
        ]
        for version, prompts, mean in (("rlhf-v3", "ab", 0.0), ("rlhf-v1", "bc", 4.0))
    )
    config = SelectConfig(rule=rule, bag_share=share, per_prompt=2)
    alone = select(own, config, seed=1)
    found, competing = select_with(admitted(old, alone.chosen, config), own, config, seed=1)
    for safety in (False, True):
        chosen = [c for c in found.chosen if c.safety_prompt == safety]
        guests = sum(c.source_version == "rlhf-v1" for c in chosen)
        assert guests <= share * len(chosen)
        assert guests >= (min(share, 2 / 3) - 0.15) * len(chosen)  # nearly as many as may
    assert len(competing) >= sum(c.source_version == "rlhf-v1" for c in found.chosen)
    assert select_with([], own, config, seed=1) == (alone, [])


def test_every_chosen_answer_is_marked_once(tmp_path: Path) -> None:
    candidates = [
        _candidate("p", "ended", 1.0),
        _candidate("p", "cut", 9.0, finished=False),
        _candidate("p", "ended", 1.0),
        _candidate("q", "cut", 2.0, finished=False),
    ]
    config = SelectConfig(finished_only=False, rule="threshold", quantile=0.0)
    _write_scores(tmp_path / "scores.parquet", candidates, select(candidates, config, seed=1))
    table = pq.read_table(tmp_path / "scores.parquet").to_pydict()
    assert table["chosen"] == [True, True, False, True]


@pytest.mark.parametrize(
    ("fate", "remedy"),
    [
        ({"finished": False}, "max_new_tokens"),
        ({"safe_probability": 0.01}, "safety_threshold"),
        ({"text": " "}, "look at the policy's answers"),
    ],
)
def test_a_lost_domain_is_explained_by_its_own_answers(fate: Any, remedy: str) -> None:
    """Whatever befell those of the other domain, of which there are more."""
    values = {"text": "t", "reward": 0.0, "safety_prompt": True, **fate}
    candidates = [_candidate("s", **values), _candidate("h", "good", 1.0)]
    candidates += [_candidate("h", f"cut {n}", 0.0, finished=False) for n in range(3)]
    config = SelectConfig()
    with pytest.raises(StageError, match="no sample of the 1 safety prompts") as raised:
        _refuse_lost_domain(select(candidates, config, seed=1), candidates, config)
    assert remedy in str(raised.value)


def _pool(count: int) -> list[Prompt]:
    return [
        Prompt(
            messages=[{"role": "user", "content": f"question {i}"}],
            domain="safety" if i % 4 == 0 else "helpfulness",
            category=f"c{i % 3}",
        )
        for i in range(count)
    ]


def test_the_mixture_keeps_categories_and_forgets_order() -> None:
    pool = _pool(240)
    drawn = draw_prompts(pool, 60, 7)
    assert len(drawn) == 60
    assert Counter(p.domain for p in drawn) == {"helpfulness": 45, "safety": 15}
    assert set(Counter(p.category for p in drawn).values()) == {20}
    assert [p.id for p in draw_prompts(pool[::-1], 60, 7)] == [p.id for p in drawn]
    assert {p.id for p in draw_prompts(pool, 60, 8)} != {p.id for p in drawn}
    assert len(draw_prompts(pool, 999, 7)) == 240
    assert len(draw_prompts(pool, 1, 7)) == 1


def test_fresh_prompts_come_first_then_those_sampled_least() -> None:
    pool = _pool(240)
    used: Counter[str] = Counter()
    for version in range(6):  # 240 hold four versions' 60; drawn anew, the second repeats a quarter
        drawn = draw_prompts(pool, 60, version, used)
        repeated = sum(prompt.id in used for prompt in drawn)
        assert repeated == (0 if version < 4 else 60)
        # The shares of the pool stay.
        assert Counter(p.domain for p in drawn) == {"helpfulness": 45, "safety": 15}
        used.update(prompt.id for prompt in drawn)
    assert set(used.values()) == {1, 2}
    whole = draw_prompts(pool, 999, 7, used)
    assert [p.id for p in whole] == [p.id for p in draw_prompts(pool, 999, 7)]
    again = draw_prompts(pool, 60, 1, {prompt.id: 3 for prompt in pool})
    assert [p.id for p in again] == [p.id for p in draw_prompts(pool, 60, 1)]


def test_pairs_differ_in_temperature_and_hide_who_wrote_what() -> None:
    config = CollectConfig(pairs=40, safety_share=0.25, temperatures=(0.7, 1.3))
    planned = plan_pairs(_pool(40), ("rlhf-v1", "sft"), config, 3)
    assert sum(pair.prompt.tag_safety for pair in planned) == 10
    first = []
    for number, pair in enumerate(planned):
        assert {side.temperature for side in pair.sides} == {0.7, 1.3}
        drawn = [[Sample([1], [0.0], True, f"{side.version} {number}")] for side in pair.sides]
        row = make_pair(pair, (drawn[0], drawn[1]), 3)
        assert row is not None
        assert {one["version"] for one in row["responses"]} == {"rlhf-v1", "sft"}
        first.append(row["responses"][0]["version"])
    assert 8 <= first.count("sft") <= 32
    seeds = {seed for pair in planned for side in pair.sides for seed in side.seeds}
    assert len(seeds) == 40 * 4


def test_pairs_prefer_finished_answers_and_drop_equal_ones() -> None:
    pair = plan_pairs(_pool(4), ("sft", "sft"), CollectConfig(pairs=1), 3)[0]
    cut, done = Sample([1], [0.0], False, "cut"), Sample([1], [0.0], True, "done")
    other = Sample([1], [0.0], True, "other")
    row = make_pair(pair, ([cut, done], [done, other]), 3)
    assert row is not None
    assert {one["text"] for one in row["responses"]} == {"done", "other"}
    assert make_pair(pair, ([done, done], [done]), 3) is None
    assert make_pair(pair, ([Sample([1], [0.0], True, "")], [done]), 3) is None


def search(*arguments: Any, finished_only: bool = True) -> tuple[float, list[Any]]:
    return best_temperature(
        (0.7, 1.0, 1.3), *arguments, [0.5, 0.9, 0.8], finished_only=finished_only
    )


def test_temperature_search_takes_the_best_expected_best_of_k() -> None:
    random = np.random.default_rng(0)
    rewards = np.stack([random.normal(0, spread, (30, 8)) for spread in (0.5, 1.5, 1.0)])
    finished = np.ones_like(rewards, dtype=bool)
    best, tried = search(rewards, finished)
    assert best == 1.0
    assert tried[1].expected == pytest.approx(rewards[1].max(axis=1).mean())
    assert [row["n"] for row in tried[0].curve] == [1, 2, 4, 8]
    # Answers that selection would leave out are worth nothing.
    finished[1] = False
    assert search(rewards, finished)[0] == 1.3
    # Where selection takes them, they count: the search does not look for answers that end soon.
    assert search(rewards, finished, finished_only=False)[0] == 1.0
    # Beside one that ended they are worth no more than it, as in the selection.
    finished[1, :, 0] = True
    found = search(rewards, finished, finished_only=False)[1][1].expected
    assert found == pytest.approx(rewards[1, :, 0].mean())


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0},
        {"grid": []},
        {"grid": [1.0, 1.0]},
        {"generation": {"stop": [""]}},
        {"k": 0},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        SampleConfig(**wrong)
