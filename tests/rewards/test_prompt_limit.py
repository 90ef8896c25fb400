"""A reward model reads one and the same prompt wherever it is asked."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from reward_helpers import tiny, word_tokenizer

from alignment.config.rewards import RewardsConfig
from alignment.models.chat_renderer import ChatRenderer, Message, Tokens
from alignment.preferences.schema import Comparison
from alignment.rewards.card import RewardCard
from alignment.rewards.examples import build
from alignment.rewards.heldout_scores import cut_scores_higher, measure
from alignment.rewards.mixture import Source
from alignment.rewards.model import RewardModel
from alignment.training.ppo.scoring import Episode, ModelScorer, PromptItem

LIMIT = 12


def dialogue(turns: int) -> list[Message]:
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    asked: list[Message] = []
    for number in range(turns):
        asked.append({"role": "user", "content": f"tell me {words[number]} ?"})
        asked.append({"role": "assistant", "content": "good"})
    return asked[:-1]


def a_model(limit: int | None) -> RewardModel:
    return RewardModel(
        tiny("llama"), word_tokenizer(), RewardCard("helpfulness", max_prompt_tokens=limit)
    )


def recorded(reward: RewardModel, monkeypatch: pytest.MonkeyPatch) -> list[Tokens]:
    """What the reward model is asked to score from now on; every score is 0."""
    read: list[Tokens] = []

    def score(items: list[Tokens], *_: Any) -> np.ndarray:
        read.extend(items)
        return np.zeros(len(items))

    monkeypatch.setattr(reward, "score", score)
    return read


@pytest.mark.parametrize("limit", [LIMIT, None])
def test_the_prompt_is_the_same_in_training_measurement_selection_and_ppo(
    limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    reward = a_model(limit)
    conversation = dialogue(6)
    policy = ChatRenderer(word_tokenizer(), 8)  # PPO's own limit is another one
    row = Comparison(
        conversation=conversation, chosen="blue sea", rejected="hot", domain="helpfulness"
    )
    read = recorded(reward, monkeypatch)
    measure(reward, [Source("batch", row)], 1024)
    reward.score_texts([(conversation, "blue sea", True)])
    drawn = policy.tokens(conversation, "blue sea")
    item = PromptItem(tuple(drawn.prompt), tuple(conversation))
    monkeypatch.setattr(reward, "choose_pass", lambda: None)
    ModelScorer(reward, policy)([Episode(item, drawn, True)])
    margins = RewardsConfig().margin_table
    built = build([row], reward.renderer, margins=margins, max_length=256)
    prompts = {tuple(item.prompt) for item in read}
    assert len(read) == 4
    assert len(prompts) == 1
    prompt = prompts.pop()
    whole = tuple(reward.renderer.prompt(conversation, limit=10**6))
    assert built.elements[0].sequences[0][: len(prompt)] == prompt
    assert built.cut_prompts == (limit is not None)
    if limit is None:
        assert prompt == whole
    else:
        assert len(prompt) <= limit < len(whole)
        assert prompt == whole[-len(prompt) :]
    assert {tuple(item.response) for item in read[2:]} == {tuple(drawn.response)}


def test_a_long_comparison_loses_old_turns_and_not_itself() -> None:
    renderer = ChatRenderer(word_tokenizer())
    row = Comparison(
        conversation=dialogue(6), chosen="blue sea", rejected="hot", domain="helpfulness"
    )
    whole = renderer.prompt(row.conversation)
    margins = RewardsConfig().margin_table
    longest = len(renderer.tokens(row.conversation, "blue sea"))
    built = build([row], renderer, margins=margins, max_length=longest)
    assert (built.pairs, built.cut_prompts, built.dropped_long) == (1, 0, 0)
    built = build([row], renderer, margins=margins, max_length=longest - 1)
    assert (built.pairs, built.cut_prompts, built.dropped_long) == (1, 1, 0)
    sides = built.elements[0].sequences
    # Whole exchanges go, and the same ones for both answers.
    shorter = renderer.prompt(row.conversation[2:])
    assert [list(side[: len(shorter)]) for side in sides] == [shorter, shorter]
    assert len(shorter) < len(whole)
    # An answer that leaves its prompt less than a quarter cannot be judged.
    tall = row.model_copy(update={"chosen": "blue " * 20})
    built = build([tall], renderer, margins=margins, max_length=24)
    assert (built.pairs, built.dropped_long) == (0, 1)


def test_a_long_answer_that_fits_with_its_prompt_is_kept() -> None:
    """However short the prompt is: none of it has to go."""
    renderer = ChatRenderer(word_tokenizer())
    row = Comparison(
        conversation=dialogue(1), chosen="blue " * 60, rejected="hot", domain="helpfulness"
    )
    margins = RewardsConfig().margin_table
    exact = len(renderer.tokens(row.conversation, row.chosen))
    for longest, kept in ((exact, 1), (exact - 1, 0)):
        built = build([row], renderer, margins=margins, max_length=longest)
        assert (built.pairs, built.cut_prompts, built.dropped_long) == (kept, 0, 1 - kept)


def test_both_sides_are_measured_behind_one_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The context leaves the longer answer a shorter prompt, and the other reads that too."""
    reward = a_model(None)
    row = Comparison(
        conversation=dialogue(6), chosen="blue sea", rejected="hot", domain="helpfulness"
    )
    whole = reward.renderer.tokens(row.conversation, "blue sea")
    reward.renderer.context = len(whole) - 1
    read = recorded(reward, monkeypatch)
    measure(reward, [Source("batch", row)], 1024)
    cut_scores_higher(reward, [Source("batch", row)], 1024)
    shorter = reward.renderer.prompt(row.conversation[2:])
    assert [item.prompt for item in read] == [shorter] * 4
    assert read[0] == read[2] == Tokens(shorter, whole.response)
    assert read[3] == Tokens(shorter, whole.response[:-1])


def test_answers_to_one_prompt_are_compared_behind_one_prompt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In best-of-K and evaluation too the context leaves the longest answer the least."""
    reward = a_model(None)
    conversation, other = dialogue(6), dialogue(2)
    reward.renderer.context = len(reward.renderer.tokens(conversation, "blue sea")) - 1
    read = recorded(reward, monkeypatch)
    rows = [(conversation, "hot", True), (other, "hot", False), (conversation, "blue sea", True)]
    reward.score_texts(rows)
    shorter = reward.renderer.prompt(conversation[2:])
    whole = reward.renderer.prompt(other)
    assert [item.prompt for item in read] == [shorter, whole, shorter]
    answers = [reward.renderer.response(text, finished=ended) for _, text, ended in rows]
    assert [item.response for item in read] == answers


def test_one_long_answer_takes_no_sound_pair_of_its_ranking_along() -> None:
    texts = ["blue sea", "hot", "good", "blue " * 20]
    rows = [
        Comparison(
            conversation=dialogue(2), chosen=one, rejected=other, domain="helpfulness", group="g"
        )
        for one, other in combinations(texts, 2)
    ]
    margins = RewardsConfig().margin_table
    built = build(rows, ChatRenderer(word_tokenizer()), margins=margins, max_length=24)
    assert (built.pairs, built.dropped_long) == (3, 3)
    assert len(built.elements) == 1
    assert len(built.elements[0].sequences) == 3


def test_the_context_shortens_the_prompt_by_whole_exchanges() -> None:
    plain = ChatRenderer(word_tokenizer())
    shorter = plain.prompt(dialogue(6)[-3:])
    answer = plain.response("blue sea")
    exact = len(shorter) + len(answer)
    for context in (exact, exact + 1):
        renderer = ChatRenderer(word_tokenizer(), context=context)
        assert renderer.tokens(dialogue(6), "blue sea") == Tokens(shorter, answer)
    renderer = ChatRenderer(word_tokenizer(), context=exact - 1)
    assert renderer.tokens(dialogue(6), "blue sea").prompt == plain.prompt(dialogue(6)[-1:])
